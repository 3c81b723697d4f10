"""Training in this process: when a job is computed, where, and what cannot fit."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from halos import ArrayCorpus, DataOptions, all_of
from halos.config.config import resolved
from halos.errors import ConfigError
from halos.models.building import built
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.conformance.networks import small_cluster
from halos.testing.resuming import problem
from halos.training import Job, Task, inline
from halos.training.trainer import Trainer
from halos.values.params import Layout
from tests.keeping import HERE
from tests.small_runs import Policy


def test_a_job_that_nobody_waits_for_any_more_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, train = [], Trainer.train

    def noted(self: Trainer, worker: int, *arguments: Any) -> Any:
        trained.append(worker)
        return train(self, worker, *arguments)

    async def body(sim: Simulation) -> None:
        sim.train(sim.workers[1], sim.params, 5)  # until 5 s, when nobody is there any more
        await sim.train(sim.workers[0], sim.params, 2)

    monkeypatch.setattr(Trainer, "train", noted)
    record(tiny(), policy=Policy(body))
    assert trained == [0]


def test_a_gradient_is_the_mean_at_the_start_and_a_step_along_it_belongs_to_no_worker() -> None:
    async def body(sim: Simulation) -> None:
        updates = await all_of([sim.train(worker, sim.params, 1, gradient=True) for worker in sim.workers])
        # The loss is ½ Σ (θ − 1)², at θ = 0: a gradient of −1; a step of 0.1 along it is 0.1.
        for update in updates:
            assert update.delta.flat is not None and update.delta.flat.tolist() == [-1.0, -1.0]
        stepped = sim.inner_step(sim.params, updates[0].delta, 0)
        assert stepped.flat is not None and stepped.flat.tolist() == pytest.approx([0.1, 0.1])
        sim.commit(stepped, updates)

    run = record(tiny(budget={"local_steps": 2}), policy=Policy(body))
    assert run.evaluations[-1].loss == pytest.approx(0.9**2)


@pytest.mark.parametrize(("held_out", "asked", "samples"), [(8, 3, 3), (2, 5, 2), (0, 5, 5)])
def test_predictions_are_of_what_is_held_out_or_of_samples_drawn_by_the_seed(
    held_out: int, asked: int, samples: int
) -> None:
    """Of a linear regression: each sample's own loss, the mean over all of them as in an evaluation."""
    sections = tiny(
        model={"name": "linear_regression", "features": 3},
        data={"validation_samples": held_out},
        train={"batch_size": 2},
    )
    config, _ = resolved(sections)
    executor: Any = config.executor
    start = executor.open(Task(config.model, config.data, config.train, small_cluster(1), 0, {}))
    made = [list(executor.predictions([start, start], asked, seed)) for seed in (0, 0, 1)]
    for batches in made:
        assert sum(one.samples for one, _ in batches) == samples
        assert all(one == other and one.logits is None for one, other in batches)
    losses = [[one.loss for one, _ in batches] for batches in made]
    assert losses[0] == losses[1] and (losses[0] == losses[2]) == (held_out > 0)
    if asked > held_out > 0:  # all of them
        found = executor.evaluate(start, "validation")["loss"]
        assert sum(one.loss * one.samples for one, _ in made[0]) / samples == pytest.approx(found)


@pytest.mark.parametrize(("held_out", "micro"), [(6, 1), (6, 2), (0, 2)])
def test_the_gradient_of_the_probe_batch_is_the_mean_of_its_samples(held_out: int, micro: int) -> None:
    """Of a linear regression: mean (x·w − y) x, worked out sample by sample; in fp32 also where training is in bf16."""
    sections = tiny(
        model={"name": "linear_regression", "features": 3, "noise": 0.5},
        data={"validation_samples": held_out},
        train={"batch_size": 2, "micro_batch_size": micro, "precision": "bf16"},
    )
    config, _ = resolved(sections)
    executor: Any = config.executor
    start = executor.open(Task(config.model, config.data, config.train, small_cluster(1), 0, {}))
    at = start.map(lambda flat: flat + torch.tensor([1.0, -2.0, 0.5]))
    found, module = executor.probe_gradient(at, 5, seed=0), config.model.build(None, 0)
    several = []
    for batch in executor._probed(5, 0):
        x, y = module.examples(batch)
        several.extend((x @ at.flat - y)[:, None] * x)
    assert len(several) == 5
    assert found.flat.tolist() == pytest.approx(torch.stack(several).mean(0).tolist(), rel=1e-5)
    assert torch.equal(found.flat, executor.probe_gradient(at, 5, seed=0).flat)


def test_an_inner_state_may_be_taken_and_given() -> None:
    """θ ← θ − 0.1 m of ½ (θ − 1)², m ← 0.5 m + θ − 1, m at first 0: from 0 to 0.1 (m = −1), to 0.24 (m = −1.4)."""
    config, _ = resolved(tiny(model={"size": 1}, train={"optimizer": {"momentum": 0.5}}))
    executor: Any = config.executor
    start = executor.open(Task(config.model, config.data, config.train, small_cluster(2), 0, {}))
    at = start.map(lambda flat: flat + 0.1)
    assert executor.inner_state(0)["optimizer"] is None and executor.state()["workers"] == {}
    executor.result(Job(0, 0, start, 1, 0, 0, 1, 0, 0.0))
    second = Job(1, 1, at, 1, 0, 1, 2, 1, 1.0)
    assert executor.probe(second, executor.inner_state(1)).params.flat.item() == pytest.approx(0.19)  # m = −0.9
    executor.give(1, copy.deepcopy(executor.inner_state(0)))
    assert executor.result(second).params.flat.item() == pytest.approx(0.24)
    assert executor.inner_state(1)["optimizer"]["momentum_buffer"].item() == pytest.approx(-1.4)
    assert executor.inner_state(0)["optimizer"]["momentum_buffer"].item() == pytest.approx(-1.0)


@pytest.mark.parametrize(("optimizer", "vectors"), [("adamw", 2 * 16 + 4), ("momentum", 16 + 4), ("sgd", 4)])
def test_what_needs_more_memory_than_is_free_is_refused(
    optimizer: str, vectors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments of sixteen workers, and four vectors of the model besides, four bytes a parameter."""
    options = {"name": "sgd", "momentum": 0.9} if optimizer == "momentum" else {"name": optimizer}
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * 16}]}, model={"size": 1000}, train={"optimizer": options},
        budget={"local_steps": 32},
    )  # fmt: skip
    monkeypatch.setattr("halos.data.memory.available", lambda: 4000 * vectors)
    assert len(record(sections).updates) == 16
    monkeypatch.setattr("halos.data.memory.available", lambda: 4000 * vectors - 1)
    with pytest.raises(ConfigError, match=r"^model: 1,000 parameters and 16 workers' optimizer states need at least"):
        record(sections)


def test_a_device_that_is_not_there_is_refused_with_what_may_be_given() -> None:
    for device in ("gpu", "meta"):
        with pytest.raises(ConfigError) as refused:
            record(tiny(executor={"name": "inline", "device": device}))
        assert str(refused.value).startswith(f"executor.device: '{device}' cannot be used here (")
        assert str(refused.value).endswith("; give auto, cpu, cuda, or cuda:1 and so on")


def test_an_evaluation_set_has_no_tokens_that_the_data_have_not() -> None:
    other = {"name": "synthetic", "samples": 16, "sequence_length": 8, "validation_samples": 8, "vocab_size": 1000}
    with pytest.raises(
        ConfigError, match=r"^evaluate\.sets\.other: its tokens are other ones than the data's: there are 1000, of"
    ):
        record(tiny(evaluate={"sets": {"other": other}}))


def test_parameters_are_counted_over_all_tensors() -> None:
    assert Layout({"weight": (3, 4), "bias": (3,), "scale": ()}).size == 16 == 12 + 3 + math.prod(())


def keeping(**changes: Any) -> dict[str, Any]:
    """A run of two workers with batch norm, in batches of four."""
    return tiny(**{"train": {"batch_size": 4}, "data": {"shuffle": False}, **changes}) | {"model": {"name": "keeping"}}


def test_buffers_stay_with_their_worker_and_evaluations_have_their_mean() -> None:
    """The same by a loop of PyTorch's own: two copies of a module, of which only the parameters are averaged."""
    sections = keeping()
    run = record(sections, [HERE])
    config, _ = resolved(sections, [HERE])
    corpus = config.data.open(config.seed)
    rows = torch.from_numpy(corpus.read(slice(0, len(corpus))).astype("int64"))
    module = built(config.model, corpus.vocab_size, config.seed)
    workers = [copy.deepcopy(module) for _ in range(2)]
    assert len(run.updates) == 4
    for updates in (run.updates[:2], run.updates[2:]):
        for update in updates:
            worker = workers[update.worker]
            optimizer = torch.optim.SGD(worker.parameters(), lr=0.1)
            for first in range(*update.samples, 4):
                optimizer.zero_grad()
                worker(rows[first : first + 4]).backward()
                optimizer.step()
        with torch.no_grad():
            for several in zip(*(worker.parameters() for worker in workers)):
                mean = (several[0] + several[1]) / 2
                for parameter in several:
                    parameter.copy_(mean)
    norms = [worker.get_submodule("norm") for worker in workers]
    assert not torch.equal(norms[0].running_mean, norms[1].running_mean)  # type: ignore[arg-type]
    for name in ("running_mean", "running_var"):
        getattr(norms[0], name).copy_((getattr(norms[0], name) + getattr(norms[1], name)) / 2)
    with torch.no_grad():
        loss = float(workers[0].eval()(rows[-8:]))
    assert run.evaluations[-1].loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("policy", [{"name": "diloco"}, {"name": "async_local_sgd"}])
def test_a_run_that_is_resumed_has_every_workers_buffers_and_draws(policy: dict[str, Any]) -> None:
    model = {"name": "keeping", "dropout": 0.3, "noise": 0.1}
    assert problem(keeping(budget={"local_steps": 16}) | {"policy": policy, "model": model}, [HERE]) is None


def test_every_job_draws_anew_and_a_second_run_the_same() -> None:
    one, other = (record(keeping() | {"model": {"name": "drawing"}}, [HERE]) for _ in range(2))
    drawn = [update.losses for update in one.updates]
    assert len({loss for losses in drawn for loss in losses}) == 4 * 2  # jobs, of two steps each
    assert drawn == [update.losses for update in other.updates]
    assert len({evaluation.loss for evaluation in one.evaluations}) == 1


def test_a_model_without_shapes_takes_the_same_time_untrained() -> None:
    """3 · 8 + 3 and 3 + 1 weights and biases of its layers, 3 + 3 of its norm: 37 numbers, 148 bytes."""
    trained, timed = (record(keeping(executor={"name": name}, network={"bandwidth_gbps": 1e-6}), [HERE])
                      for name in ("inline", "timing"))  # fmt: skip
    assert [each.time for each in trained.commits] == [each.time for each in timed.commits]
    assert {transfer.bytes for transfer in timed.transfers} == {2 * 148}


def test_an_evaluation_set_of_tokens_says_nothing_about_a_model_of_images() -> None:
    def of(corpus: ArrayCorpus) -> Any:
        return DataOptions(), corpus  # a source that does not say its vocabulary

    images, tokens = of(ArrayCorpus(np.zeros((9, 2, 2)))), of(ArrayCorpus(np.zeros((9, 9), int), 5))
    with pytest.raises(ConfigError, match=r"^its samples are tokens, those of the data are no tokens$"):
        inline.refuse_other_tokens(tokens, images)
    with pytest.raises(ConfigError, match=r"^its samples are no tokens, those of the data are tokens$"):
        inline.refuse_other_tokens(images, tokens)
    with pytest.raises(ConfigError, match=r"^has 5 different tokens, the data only 4$"):
        inline.refuse_other_tokens(tokens, of(ArrayCorpus(np.zeros((9, 9), int), 4)))
    inline.refuse_other_tokens(tokens, tokens)
    inline.refuse_other_tokens(images, images)
