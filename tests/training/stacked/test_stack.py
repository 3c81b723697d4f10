"""Several jobs' inner loops at once against the trainer that takes them one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from halos.errors import Diverged
from halos.models.gpt_neox import GPTNeoX
from halos.training import Job
from halos.training.optimizers import SGD
from halos.training.options import ScheduleOptions, TrainOptions
from halos.training.stacked.stack import Stack
from halos.training.trainer import Trainer
from halos.values.params import Params

TOKENS = torch.randint(24, (400, 9), generator=torch.Generator().manual_seed(0))
MODEL = GPTNeoX(hidden_size=16, layers=1, heads=2)
MOMENTUM = SGD(lr=0.1, momentum=0.9)


def read(shard: int, first: int, count: int) -> torch.Tensor:
    return TOKENS[first : first + count]


def made(at_once: int = 100, **options: Any) -> tuple[Stack, Trainer]:
    train = TrainOptions(**{"batch_size": 4, "optimizer": MOMENTUM, "schedule": ScheduleOptions(warmup=4), **options})
    trainer = Trainer(MODEL.build(24, 0), train, torch.device("cpu"))
    return Stack(trainer, MODEL.stacked(trainer.module), read, at_once), trainer


def jobs_of(start: Params, steps: list[int], **more: Any) -> list[Job]:
    """A job for each worker, from parameters, samples and a learning-rate step of its own."""
    return [
        Job(10 + i, i, start * (1.0 + 0.1 * i), count, 0, 40 * i, 40 * i + 4 * count, 3 * i, 0.0, **more)
        for i, count in enumerate(steps)
    ]


def alone(trainer: Trainer, job: Job) -> tuple[Params, tuple[float, ...], tuple[int, ...], float]:
    batches = (read(0, first, trainer.options.micro) for first in range(job.first_sample, job.end_sample, 2))
    if trainer.options.micro == 4:
        batches = (read(0, first, 4) for first in range(job.first_sample, job.end_sample, 4))
    if job.gradient:
        return trainer.gradient(job.worker, job.start, job.steps, batches, 0.0)
    return trainer.train(job.worker, job.start, job.steps, job.lr_step, batches, 0.0)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("micro", [4, 2])
@pytest.mark.parametrize("at_once", [100, 5, 1])
def test_jobs_of_unequal_steps_end_where_they_end_alone(gradient: bool, micro: int, at_once: int) -> None:
    """Twice, the second time from the states that the first one left."""
    stack, mine = made(at_once, micro_batch_size=micro, loss_average_steps=2)
    _, other = made(micro_batch_size=micro, loss_average_steps=2)
    for steps in ([3, 5, 1, 5], [2, 1, 4, 4]):
        jobs = jobs_of(mine.initial(), steps, gradient=gradient)
        done = stack.trained(jobs)
        for job in jobs:
            outcome, (params, losses, chunks, loss) = stack.taken(job, done[job.id]), alone(other, job)
            assert (outcome.params - params).norm() <= 1e-6 * params.norm()
            assert outcome.chunks == chunks and outcome.losses == pytest.approx(losses, rel=1e-6)
            assert outcome.loss == pytest.approx(loss, rel=1e-6)
    if gradient:
        assert not any(each.moments for each in map(mine.states.of, range(4)))


def counted(network: Callable[..., torch.Tensor], rows: list[int]) -> Callable[..., torch.Tensor]:
    def call(tensors: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        rows.append(len(batch))
        return network(tensors, batch)

    return call


def test_rows_that_are_over_are_not_computed() -> None:
    stack, trainer = made()
    rows: list[int] = []
    stack._network = counted(stack._network, rows)
    stack.trained(jobs_of(trainer.initial(), [1, 4, 2]))
    assert rows == [3, 2, 1, 1]


def test_a_state_stays_what_it_was_until_the_outcome_is_taken() -> None:
    stack, trainer = made()
    first, second = (jobs_of(trainer.initial(), [2, 2]) for _ in range(2))
    done = stack.trained(first)
    assert trainer.states.known(0) is None
    stack.taken(first[0], done[first[0].id])
    before = trainer.states.copied(0)["optimizer"]["momentum_buffer"]
    stack.trained(second[:1])
    assert torch.equal(trainer.states.copied(0)["optimizer"]["momentum_buffer"], before)


def test_a_loss_that_is_no_number_is_of_its_row_alone() -> None:
    stack, trainer = made()
    one, two = jobs_of(trainer.initial(), [3, 3])
    fine = stack.trained([one, two])[one.id]
    bad = two._replace(start=two.start * float("inf"))
    done = stack.trained([one, bad])
    assert torch.equal(done[one.id].flat, fine.flat) and torch.equal(done[one.id].losses, fine.losses)
    stack.taken(one, done[one.id])
    with pytest.raises(Diverged, match=r"became nan: worker 1, local step 1 of 3 in the job started at 0 simulated"):
        stack.taken(bad, done[bad.id])


def test_only_the_rows_that_are_too_long_are_clipped() -> None:
    """By one step of plain SGD, a rate of 1: the step of a row is no longer than the bound; a short one is as it is."""
    plain = SGD(lr=1.0, weight_decay=0.0)
    steps = {}
    for clip in (0.0, 1.7):
        stack, trainer = made(optimizer=plain, schedule=ScheduleOptions(name="constant"), clip=clip)
        jobs = jobs_of(trainer.initial(), [1, 1])
        jobs[1] = jobs[1]._replace(start=jobs[1].start * 8.0)  # steeper
        done = stack.trained(jobs)
        steps[clip] = [(stack.taken(job, done[job.id]).params - job.start).norm() for job in jobs]
    free, bound = steps[0.0], steps[1.7]
    assert free[0] < 1.7 < free[1]
    assert bound == [pytest.approx(free[0], rel=1e-6), pytest.approx(1.7, rel=1e-5)]
