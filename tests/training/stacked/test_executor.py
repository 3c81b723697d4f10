"""Training jobs in stacks: what `inline` gives but for rounding, and the same bits whatever is in the stack."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from halos import all_of
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.errors import ConfigError, Diverged, UserError
from halos.sim.simulation import Simulation
from halos.testing import record, resuming, tiny
from halos.testing.conformance import ExecutorConformance
from halos.testing.resuming import CHECKPOINTED
from halos.testing.witness import everything, fingerprint
from halos.training import Job
from halos.training.inline import Inline
from halos.training.stacked.executor import Stacked
from halos.training.stacked.stack import Stack
from halos.values.params import Params
from tests.keeping import HERE
from tests.run.cutting import CASES, NOISY
from tests.small_runs import Policy

MANY: Section = {"executor": {"name": "stacked", "most": 64}}
NEOX: Section = {"model": {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2}}
UNEQUAL: Section = {
    "cluster": {"regions": [{"workers": [1.0, 0.4, 0.7]}, {"workers": [0.5, 1.0]}]},
    "policy": {"name": "diloco"},
    "steps": {"name": "by_speed", "base": 8},
    "budget": {"local_steps": 90},
    "train": {"batch_size": 4, "optimizer": {"name": "adamw", "lr": 0.01}, "loss_average_steps": 3},
}


class TestConformance(ExecutorConformance):
    plugins: ClassVar[Sequence[str]] = ["halos.training.stacked.executor"]
    sections = ({"name": "stacked", "most": 16}, {"name": "stacked", "most": 3})


def transformer(**more: Any) -> Section:
    """A run of the transformer by five workers of unequal speed."""
    sections = tiny()
    return merge({**sections, "model": NEOX["model"]}, merge(UNEQUAL, more))


def stacks_of(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The workers of each stack from now on, in a list that grows."""
    stacks: list[list[int]] = []
    trained = Stack.trained

    def noted(self: Stack, jobs: Sequence[Job]) -> Any:
        stacks.append([job.worker for job in jobs])
        return trained(self, jobs)

    monkeypatch.setattr(Stack, "trained", noted)
    return stacks


def apart(one: Params, other: Params) -> float:
    """The norm of their difference, without the biases of keys.

    Softmax takes no notice of these, so that their gradient is rounding alone; and AdamW makes steps of it that are as
    large as any.
    """
    total = 0.0
    for name, tensor in (one - other).tensors().items():
        if name.endswith("query_key_value.bias"):
            tensor = tensor.view(2, 3, -1)[:, ::2]  # heads; query, key, value
        total += float(tensor.double().square().sum())
    return math.sqrt(total)


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"micro_batch_size": 2},
        {"clip": 0.05},
        {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
        {"optimizer": {"name": "sgd", "lr": 0.1}},
        {"precision": "bf16"},
    ],
)
def test_runs_are_those_of_inline_but_for_rounding(train: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unequal steps: first updates to 1e-5 (bf16: to its own rounding), then every loss."""
    stacks = stacks_of(monkeypatch)
    ours, inlines = (record(transformer(train=train, **more)) for more in (MANY, {}))
    assert max(map(len, stacks)) == 5
    near = 1e-2 if train.get("precision") == "bf16" else 1e-5
    for mine, other in zip(ours.updates[:5], inlines.updates[:5], strict=True):
        assert [*mine][:3] == [*other][:3] and mine.chunks == other.chunks
        assert apart(mine.params, other.params) <= near * other.params.distance(other.start)
    for mine, other in zip(ours.updates, inlines.updates, strict=True):
        assert mine.losses == pytest.approx(other.losses, rel=near)
    final, theirs = ours.simulation.params, inlines.simulation.params
    assert apart(final, theirs) <= near * theirs.norm()


def test_loss_curves_differ_by_far_less_than_seeds_do() -> None:
    runs = {}
    for seed in range(3):
        for name, more in (("stacked", MANY), ("inline", {})):
            run = record(transformer(seed=seed, **more))
            runs[name, seed] = torch.tensor([update.loss for update in run.updates])
    between = max(float((runs["inline", 0] - runs["inline", seed]).abs().max()) for seed in (1, 2))
    within = max(float((runs["inline", seed] - runs["stacked", seed]).abs().max()) for seed in range(3))
    assert within < 1e-3 * between


@pytest.mark.parametrize("most", [2, 3, 4])
def test_a_row_is_the_same_whatever_else_is_in_the_stack(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, on a CPU: whole runs in stacks of all, and of fewer."""
    stacks = stacks_of(monkeypatch)
    whole, cut = (record(transformer(executor={"name": "stacked", "most": each})) for each in (64, most))
    assert max(map(len, stacks[-4:])) == most
    assert fingerprint(whole.simulation.params) == fingerprint(cut.simulation.params)
    assert [update.losses for update in whole.updates] == [update.losses for update in cut.updates]


def test_the_jobs_due_first_are_stacked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = stacks_of(monkeypatch)

    async def body(sim: Simulation) -> None:
        theta = sim.params
        jobs = [sim.train(worker, theta, steps) for worker, steps in zip(sim.workers, (5, 1, 4, 2, 3))]
        sim.commit(theta, await all_of(jobs))

    sections = tiny(cluster={"regions": [{"workers": [1.0] * 5}]}, executor={"name": "stacked", "most": 2})
    record(sections, policy=Policy(body))
    assert stacks == [[1, 3], [4, 2], [0]]


@pytest.mark.parametrize("model", [{}, NEOX])
def test_a_killed_run_goes_on_to_the_same_bits(model: Section) -> None:
    """From checkpoints between a stack's results, when the rest of them is computed anew, in other stacks."""
    sections = merge(merge(NOISY, CASES["async_local_sgd"][0]), {"train": {"optimizer": {"name": "adamw"}}})
    sections = {**sections, **model, **MANY}
    whole, checkpoints = resuming.trace(merge(sections, CHECKPOINTED), at=(4, 11))
    for checkpoint in checkpoints:
        resumed, _ = resuming.trace(merge(sections, CHECKPOINTED), earlier=checkpoint)
        assert resumed.lines == whole.lines


def test_inline_goes_on_from_its_checkpoint_and_it_from_inlines() -> None:
    sections = merge(merge(NOISY, CASES["async_local_sgd"][0]), {"train": {"optimizer": {"name": "adamw"}}})
    found = {}
    for name, mine, others in (("stacked", MANY, {}), ("inline", {}, MANY)):
        whole, (_, checkpoint) = resuming.trace(merge(sections | mine, CHECKPOINTED), at=(4, 11))
        found[name] = copy.deepcopy(checkpoint.executor)
        resumed, _ = resuming.trace(merge(sections | others, CHECKPOINTED), earlier=checkpoint)
        assert len(resumed.lines) == len(whole.lines)
    workers = [state["workers"] for state in found.values()]
    assert workers[0].keys() == workers[1].keys()
    for one, other in zip(*(each.values() for each in workers)):
        assert one["optimizer"].keys() == other["optimizer"].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key, value in one["optimizer"].items():
            torch.testing.assert_close(value, other["optimizer"][key], rtol=1e-4, atol=1e-6)


def test_gradients_are_stacked_and_not_together_with_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is ½ Σ (θ − 1)², at θ = 0: a gradient of −1, whatever the number of batches."""
    stacks = stacks_of(monkeypatch)

    async def body(sim: Simulation) -> None:
        theta, workers = sim.params, sim.workers
        jobs = [sim.train(worker, theta, 2, gradient=worker.id < 2) for worker in workers]
        updates = await all_of(jobs)
        for update in updates[:2]:
            assert update.gradient is not None and update.gradient.flat is not None
            assert update.gradient.flat.tolist() == [-1.0, -1.0]
        sim.commit(sim.inner_step(theta, updates[0].delta, 0), updates)

    sections = tiny(cluster={"regions": [{"workers": [1.0] * 4}]}, budget={"local_steps": 8}, **MANY)
    record(sections, policy=Policy(body))
    assert stacks == [[0, 1], [2, 3]]


def test_a_loss_that_is_no_number_is_said_as_inline_says_it_and_when_that_is_due() -> None:
    found = []
    for executor in ({"executor": {"name": "inline"}}, MANY):
        sections = tiny(train={"optimizer": {"lr": 1e20}}, budget={"local_steps": 1000}, **executor)
        with pytest.raises(Diverged) as said:
            record(sections)
        found.append(str(said.value))
    assert found[0] == found[1]


def test_a_job_without_samples_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its stack are trained; it raises what `inline` raises."""
    found = []
    for executor in ({"executor": {"name": "inline"}}, MANY):
        sections = tiny(
            data={"wrap": False, "samples": 40, "validation_samples": 8}, budget={"local_steps": 1000}, **executor
        )
        with pytest.raises(UserError) as said:
            record(sections)
        found.append(str(said.value))
    assert found[0] == found[1] and "data.wrap: false" in found[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": {"name": "keeping", "noise": 0.1}}, "draws from a generator of its own"),
        ({"model": {"name": "counting"}}, "changes its buffers"),
        ({"train": {"precision": "fp16"}}, "in fp16 every worker has a loss scale of its own"),
    ],
)
def test_what_cannot_be_stacked_is_trained_as_by_inline(
    changes: Section, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []
    for executor in ({"executor": {"name": "inline"}}, MANY):
        sections = transformer(**executor)
        sections = merge({**sections, "model": changes.get("model", NEOX["model"])}, changes)
        with caplog.at_level(logging.WARNING):
            runs.append(record(sections, [HERE]))
    assert everything(runs[0]) == everything(runs[1])
    (said,) = [message for message in caplog.messages if "executor stacked" in message]
    assert why in said and said.endswith("jobs are trained one after another, as by inline")


def test_without_memory_stacks_become_smaller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained, sizes = Stack.trained, []

    def short(self: Stack, jobs: Sequence[Job]) -> Any:
        sizes.append(len(jobs))
        if len(jobs) > most:
            raise torch.OutOfMemoryError
        return trained(self, jobs)

    whole, most = record(transformer(**MANY)), 2
    monkeypatch.setattr(Stack, "trained", short)
    with caplog.at_level(logging.WARNING):
        run = record(transformer(**MANY))
    assert sizes[:2] == [5, 2] and max(sizes[1:]) == 2
    assert fingerprint(run.simulation.params) == fingerprint(whole.simulation.params)
    assert "executor stacked: no memory for 5 jobs at once; 2 from now on" in caplog.messages
    most, theirs = 1, record(transformer())
    assert fingerprint(record(transformer(**MANY)).simulation.params) == fingerprint(theirs.simulation.params)
    assert "executor stacked: no memory for 2 jobs at once; 1 from now on" in caplog.messages


def test_there_are_no_more_rows_than_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain descent: of 4,000 bytes each, a row's parameters and gradient, and what came of it."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * 4}]}, model={"size": 1000}, budget={"local_steps": 16},
        train={"optimizer": {"name": "sgd"}}, **MANY,
    )  # fmt: skip
    for vectors, most in ((12, 4), (11, 3), (6, 2)):
        monkeypatch.setattr("halos.data.memory.available", lambda vectors=vectors: 4000 * vectors)
        with monkeypatch.context() as noting, caplog.at_level(logging.WARNING):
            stacks = stacks_of(noting)
            record(sections)
        assert max(map(len, stacks)) == most
    assert [text for text in caplog.messages if "memory" in text] == [
        "executor stacked: there is memory for stacks of 3 jobs, not 4",
        "executor stacked: there is memory for stacks of 2 jobs, not 4",
    ]


@pytest.mark.parametrize(
    ("workers", "hidden", "micro", "stacked"),
    [
        (1, 16, 4, False),  # nobody to be stacked with
        (3, 16, 4, True),  # 3,248 parameters · 4 samples · 17 numbers (or so): 0.2 million
        (3, 256, 64, False),  # above 800,000 parameters · 64 · 9 numbers: more than 400 million
    ],
)
def test_auto_stacks_what_is_small(
    workers: int, hidden: int, micro: int, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = stacks_of(monkeypatch)
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * workers}]},
        train={"batch_size": micro},
        budget={"local_steps": workers},
        executor={"name": "stacked"},
    )
    sections["model"] = {"name": "gpt_neox", "hidden_size": hidden, "layers": 1, "heads": 2}
    record(sections)
    assert bool(stacks) == stacked


def test_a_thousand_workers_of_a_tiny_model_are_one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = stacks_of(monkeypatch)
    sections = tiny(cluster={"regions": [{"workers": [1.0] * 1000}]}, executor={"name": "stacked"})
    ours, theirs = (record(merge(sections, {"budget": {"local_steps": 4000}} | more)) for more in ({}, INLINE))
    assert set(map(len, stacks)) == {1000}
    assert ours.simulation.params.distance(theirs.simulation.params) < 1e-5 * theirs.simulation.params.norm()


INLINE: Section = {"executor": {"name": "inline"}}


def test_most_is_a_number_of_jobs() -> None:
    with pytest.raises(ConfigError, match=r"most: 0 is not a positive number of jobs, or auto|most"):
        Stacked(most=0)
    assert isinstance(Stacked(most=3), Inline)
