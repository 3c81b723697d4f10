"""Training in this process: when a job is computed, where, and what cannot fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from halos import ArrayCorpus, all_of
from halos.errors import ConfigError
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.training import inline
from halos.training.trainer import Trainer
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
    with pytest.raises(ConfigError, match=r"^evaluate\.sets\.other: has 1000 different tokens, the data only \d+$"):
        record(tiny(evaluate={"sets": {"other": other}}))


def test_parameters_are_counted_over_all_tensors() -> None:
    assert inline.sum_of({"weight": (3, 4), "bias": (3,), "scale": ()}) == 16 == 12 + 3 + math.prod(())


def test_an_evaluation_set_of_tokens_says_nothing_about_a_model_of_images() -> None:
    images, tokens = ArrayCorpus(np.zeros((9, 2, 2))), ArrayCorpus(np.zeros((9, 9), int), 5)
    with pytest.raises(ConfigError, match=r"^its samples are tokens, those of the data are no tokens$"):
        inline.refuse_other_tokens(tokens, images)
    with pytest.raises(ConfigError, match=r"^its samples are no tokens, those of the data are tokens$"):
        inline.refuse_other_tokens(images, tokens)
    with pytest.raises(ConfigError, match=r"^has 5 different tokens, the data only 4$"):
        inline.refuse_other_tokens(tokens, ArrayCorpus(np.zeros((9, 9), int), 4))
    inline.refuse_other_tokens(tokens, tokens)
    inline.refuse_other_tokens(images, images)
