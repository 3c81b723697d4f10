"""One worker's inner loop: schedules by hand, and arithmetic against PyTorch's own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from halos.errors import Diverged
from halos.models.gpt_neox import GPTNeoX
from halos.models.toy import Quadratic
from halos.training.options import OptimizerOptions, ScheduleOptions, TrainOptions
from halos.training.trainer import Trainer
from halos.values.params import Params

TINY = GPTNeoX(hidden_size=16, layers=2, heads=2)
CPU = torch.device("cpu")
STEADY = ScheduleOptions(name="constant")


def batches(size: int, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(32, (size, 9), generator=generator)


def trainer(device: torch.device = CPU, **options: object) -> Trainer:
    return Trainer(TINY.build(32, 0), TrainOptions(**options), device)  # type: ignore[arg-type]


def flat(params: Params) -> Tensor:
    assert params.flat is not None
    return params.flat


def test_sgd_on_a_quadratic_by_hand() -> None:
    options = TrainOptions(batch_size=1, optimizer=OptimizerOptions(name="sgd", lr=0.5), schedule=STEADY, clip=0.0)
    model = Quadratic(size=1, optimum=1.0, dtype="float64").build(None, 0)
    one = Trainer(model, options, CPU)
    params, losses, chunks, loss = one.train(0, one.initial(), 3, 0, batches(1), 0.0)
    assert flat(params).tolist() == [1 - 0.5**3]
    assert (losses, chunks, loss) == (((0.5 + 0.125 + 0.03125) / 3,), (3,), (0.5 + 0.125 + 0.03125) / 3)


def test_losses_are_averaged_over_chunks_and_the_remainder() -> None:
    options = TrainOptions(
        batch_size=1, optimizer=OptimizerOptions(name="sgd", lr=0.5), schedule=STEADY, clip=0.0, loss_average_steps=2
    )
    one = Trainer(Quadratic(size=1, dtype="float64").build(None, 0), options, CPU)
    _, losses, chunks, loss = one.train(0, one.initial(), 5, 0, batches(1), 0.0)
    halves = [0.5 * 0.25**step for step in range(5)]
    assert chunks == (2, 2, 1)
    assert losses == pytest.approx([sum(halves[:2]) / 2, sum(halves[2:4]) / 2, halves[4]])
    assert loss == sum(halves) / 5  # powers of two: exact


@pytest.mark.parametrize("every", [1, 2, 8])
def test_whether_training_diverges_and_at_which_step_is_no_matter_of_how_losses_are_averaged(every: int) -> None:
    options = TrainOptions(
        batch_size=1, optimizer=OptimizerOptions(name="sgd", lr=2e19), schedule=STEADY, clip=0.0,
        loss_average_steps=every,
    )  # fmt: skip
    one = Trainer(Quadratic(size=1, dtype="float64").build(None, 0), options, CPU)
    # From 0, with the optimum at 1: step 1 leads to 2e19, a loss of 2e38, and step 2 to −4e38, beyond fp32 squared.
    start = one.initial()
    _, _, _, loss = one.train(0, start, 2, 0, batches(1), 0.0)
    assert loss == pytest.approx(1e38)  # the mean of ½ and 2e38; as a sum, four such would be more than fp32 holds
    with pytest.raises(Diverged, match=r"became inf: worker 0, local step 3 of 4 in the job started at 0 simulated"):
        one.train(0, start, 4, 0, batches(1), 0.0)


def test_flat_buffers_train_like_tensors_one_by_one_under_fused_adamw_and_clipping() -> None:
    one = trainer(batch_size=4, clip=0.5, schedule=ScheduleOptions(warmup=2, total=8))
    params, _, _, _ = one.train(0, one.initial(), 8, 0, batches(4), 0.0)
    module = TINY.build(32, 0)
    several = list(module.parameters())
    groups = [
        {"params": [each for each in several if each.dim() >= 2], "weight_decay": 0.1},
        {"params": [each for each in several if each.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    stream = batches(4)
    for step in range(1, 9):
        for group in optimizer.param_groups:
            group["lr"] = ScheduleOptions(warmup=2, total=8).at(1e-3, step)
        optimizer.zero_grad()
        module(next(stream)).backward()
        torch.nn.utils.clip_grad_norm_(several, 0.5)
        optimizer.step()
    theirs = torch.cat([dict(module.named_parameters())[name].detach().reshape(-1) for name in params.layout.shapes])
    assert torch.linalg.vector_norm(flat(params) - theirs) / torch.linalg.vector_norm(theirs) < 1e-5


def test_gradient_accumulation_equals_the_large_batch() -> None:
    whole, parts = trainer(batch_size=8), trainer(batch_size=8, micro_batch_size=2)
    stream = list(zip(range(3), batches(8)))
    large = (batch for _, batch in stream)
    small = (piece for _, batch in stream for piece in batch.split(2))
    a, loss_a, _, _ = whole.train(0, whole.initial(), 3, 0, large, 0.0)
    b, loss_b, _, _ = parts.train(0, parts.initial(), 3, 0, small, 0.0)
    torch.testing.assert_close(flat(a), flat(b), rtol=1e-4, atol=2e-5)
    assert loss_a == pytest.approx(loss_b, rel=1e-5)


def test_a_workers_optimizer_lives_on_and_is_its_own() -> None:
    one = trainer(batch_size=2)
    start = one.initial()
    first, _, _, _ = one.train(0, start, 4, 0, batches(2), 0.0)
    again, _, _, _ = one.train(0, start, 4, 0, batches(2), 0.0)  # the same job, with moments from the first
    other, _, _, _ = one.train(1, start, 4, 0, batches(2), 0.0)  # the same job, for somebody new
    assert not torch.equal(flat(first), flat(again))
    assert torch.equal(flat(first), flat(other))


def test_training_and_evaluating_leave_the_given_parameters_alone() -> None:
    one = trainer(batch_size=2)
    start = one.initial()
    kept = flat(start).clone()
    trained, _, _, _ = one.train(0, start, 2, 0, batches(2), 0.0)
    loss = one.evaluate(start, iter([next(batches(2))]))["loss"]
    assert torch.equal(flat(start), kept)
    assert not torch.equal(flat(trained), kept)
    assert loss == pytest.approx(math.log(32), abs=0.2)


def test_evaluation_is_the_mean_over_samples_whatever_the_batches() -> None:
    one = trainer(batch_size=2)
    batch = next(batches(7))
    whole = one.evaluate(one.initial(), iter([batch]))
    assert one.evaluate(one.initial(), iter(batch.split(3))) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_almost_alike(precision: str) -> None:
    full, low = trainer(batch_size=4, schedule=STEADY), trainer(batch_size=4, schedule=STEADY, precision=precision)
    _, theirs, _, _ = full.train(0, full.initial(), 16, 0, batches(4), 0.0)
    params, ours, _, _ = low.train(0, low.initial(), 16, 0, batches(4), 0.0)
    assert ours == pytest.approx(theirs, rel=0.02)
    assert flat(params).dtype == torch.float32


def test_a_loss_that_is_not_finite_names_worker_step_and_time() -> None:
    options = TrainOptions(batch_size=1, optimizer=OptimizerOptions(name="sgd", lr=1e30), schedule=STEADY, clip=0.0)
    one = Trainer(Quadratic(size=1).build(None, 0), options, CPU)
    with pytest.raises(
        Diverged, match=r"became (inf|nan): worker 3, local step 2 of 9 in the job started at 12.5 simulated s"
    ):
        one.train(3, one.initial(), 9, 100, batches(1), 12.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_like_the_cpu(precision: str) -> None:
    cpu = trainer(batch_size=4, schedule=STEADY)
    gpu = trainer(torch.device("cuda"), batch_size=4, schedule=STEADY, precision=precision)
    _, theirs, _, _ = cpu.train(0, cpu.initial(), 16, 0, batches(4), 0.0)
    _, ours, _, _ = gpu.train(0, gpu.initial(), 16, 0, batches(4), 0.0)
    assert ours == pytest.approx(theirs, rel=1e-4 if precision == "fp32" else 0.02)
