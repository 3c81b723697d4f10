"""Unequal workers: allocations, weights and times by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from halos import ConfigError, FaultOptions, Register, UserError, hookimpl
from halos.testing import Recording, record, two_workers
from halos.testing.conformance import ComputeConformance, StepsConformance, WeightsConformance

PLUGIN = ["halos_heterogeneous_steps"]


def run(**changes: Any) -> Recording:
    """Workers of speeds 1 and ½ that take 4 and 2 steps, of a second at the fastest; a quadratic from 0 to 1."""
    plugins = [*PLUGIN, *changes.pop("plugins", [])]
    return record(two_workers(20, steps={"name": "by_speed", "base": 4}) | changes, plugins)


def by_round(recording: Recording) -> list[list[int]]:
    """Steps of each worker, round by round."""
    mine = [[each.steps for each in recording.updates if each.worker == worker] for worker in range(2)]
    return [list(pair) for pair in zip(*mine)]


def test_measured_steps_find_the_right_allocation_after_one_round_and_again_after_a_change_of_speed() -> None:
    # At 20 s worker 1 becomes twice as fast as worker 0: then it should take 8 steps to worker 0's 4.
    schedule = {"name": "schedule", "changes": [{"worker": 1, "at_seconds": 20.0, "speed": 2.0}]}
    recording = run(
        steps={"name": "measured", "base": 8, "smoothing": 1.0}, compute=schedule, budget={"local_steps": 120}
    )
    rounds = by_round(recording)
    # Rounds: 8 and 8 (16 s), 8 and 4 (to 24 s; the change falls into it), then 4 and 8.
    assert rounds[:2] == [[8, 8], [8, 4]]
    assert rounds[4:] == [[4, 8]] * len(rounds[4:])
    assert len(rounds) > 6


def test_measured_steps_settle_within_three_rounds_under_smoothing_too() -> None:
    recording = run(steps={"name": "measured", "base": 8}, budget={"local_steps": 80})
    assert by_round(recording)[1:] == [[8, 4]] * (len(by_round(recording)) - 1)


@pytest.mark.parametrize(
    ("speeds", "expected"), [([0.6, 0.2], [30, 10]), ([1.0, 0.75], [30, 22]), ([1, 0.05], [30, 2])]
)
def test_measured_steps_are_those_on_paper_though_the_clock_rounds(speeds: list[float], expected: list[int]) -> None:
    """30 · 0.75 = 22.5 and 30 · 0.05 = 1.5 are in the middle of two, and the even one is taken, round after round."""
    cluster = {"regions": [{"workers": speeds}], "step_time_ms": 100.0}
    recording = run(cluster=cluster, steps={"name": "measured", "base": 30}, budget={"local_steps": 2000})
    assert by_round(recording)[1:] == [expected] * (len(by_round(recording)) - 1)


@dataclass
class Instant:
    """Takes no time at all."""

    def connect(self, cluster: Any, seed: int) -> None:
        pass

    def seconds(self, worker: Any, steps: int, time: float, job: int) -> float:
        return 0.0


@hookimpl
def register_compute_models(register: Register) -> None:
    register("instant", Instant)


@pytest.mark.parametrize("name", ["measured", "deadline"])
def test_of_jobs_that_take_no_time_at_all_no_speed_is_measured_and_that_is_said(name: str) -> None:
    sections = two_workers(20, steps={"name": name}, compute={"name": "instant"})
    with pytest.raises(
        UserError, match=r"^compute: \d+ local steps of worker 0 took 0 s, from which no speed can be m"
    ):
        record(sections, [*PLUGIN, __file__])


def test_weights_by_steps_and_per_step_by_hand() -> None:
    """Four and two steps: Δ = −(1 − .9⁴) and −(1 − .9²) = −.3439 and −.19; H̄ = 3."""
    outer = {"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}}
    for name, expected in [
        ("uniform", (0.3439 + 0.19) / 2),
        ("steps", (0.3439 * 4 / 3 + 0.19 * 2 / 3) / 2),  # = (4 · .3439 + 2 · .19) / 6
        ("fednova", (0.3439 * 3 / 4 + 0.19 * 3 / 2) / 2),
    ]:
        recording = run(weights={"name": name}, policy=outer, budget={"local_steps": 6})
        assert float(recording.global_commits[0].params.flat[0]) == pytest.approx(expected, abs=1e-12)  # type: ignore[index]


OUTER = {"name": "sgd", "lr": 1.0}


def crash(worker: int, at: float, seconds: float) -> dict[str, Any]:
    return {"name": "crashes", "at": [{"worker": worker, "at_seconds": at, "seconds": seconds}]}


@dataclass
class Losing(FaultOptions):
    """Loses the message of this number."""

    message: int = 0

    def loses(self, message: int) -> bool:
        return message == self.message


@hookimpl
def register_fault_models(register: Register) -> None:
    register("losing", Losing)


WEIGHTS = ["uniform", "steps", "fednova", {"name": "by_worker", "workers": [5.0, 1.0]}]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_who_alone_is_heard_counts_whole(weights: Any) -> None:
    """Of four and two steps the two are lost: what is left is 1 − .9⁴."""
    recording = run(weights=weights, policy={"name": "diloco", "outer": OUTER}, faults=crash(1, 1.0, 1.0))
    assert recording.thetas[0] == pytest.approx(0.3439, abs=1e-12)
    assert [update.factor for share in recording.commits[0].shares for update in share.updates] == [1.0]


@pytest.mark.parametrize(
    ("weights", "mine", "others"),
    [("uniform", 1.0, 1.0), ("steps", 1.0, 1.0), ("fednova", 1.0, 1.0), (WEIGHTS[3], 10 / 6, 2 / 6)],
    ids=str,
)
def test_who_is_heard_again_is_weighed_by_all_the_steps_it_brings(weights: Any, mine: float, others: float) -> None:
    """Worker 1's first message is lost. After the next round it brings 2 + 2 steps, as many as worker 0 has done."""
    policy = {"name": "diloco", "outer": OUTER}
    recording = run(weights=weights, policy=policy, faults={"name": "losing", "message": 1}, plugins=[__file__])
    first = 1 - 0.9**4
    fresh = (1 - first) * (1 - 0.9**4)  # worker 0, from θ
    brought = (1 - 0.9**4) - first  # worker 1, four steps from 0: as far as θ
    assert recording.thetas[:2] == pytest.approx([first, first + (mine * fresh + others * brought) / 2], abs=1e-12)


def test_three_that_are_heard_and_one_that_is_not_by_hand() -> None:
    """8, 4 and 2 steps, and the worker of 4 is lost: 8/10 of one and 2/10 of the other; per step, 5/8 and 5/2."""
    cluster = {"regions": [{"workers": [1.0, 0.5, 0.25]}], "step_time_ms": 1000.0}
    eight, two = 1 - 0.9**8, 1 - 0.9**2
    for weights, expected in (
        ("steps", 0.8 * eight + 0.2 * two),
        ("fednova", (5 / 8 * eight + 5 / 2 * two) / 2),
        ({"name": "by_worker", "workers": [1, 7, 3]}, (eight + 3 * two) / 4),
        ({"name": "fewer"}, (eight + 0.5 * two) / 2),  # a third party's: half, for fewer steps than the mean
    ):
        recording = run(
            cluster=cluster, weights=weights, policy={"name": "diloco", "outer": OUTER}, faults=crash(1, 1.0, 1.0),
            steps={"name": "by_speed", "base": 8}, plugins=[__file__],
        )  # fmt: skip
        assert recording.thetas[0] == pytest.approx(expected, abs=1e-12), weights


@dataclass
class Fewer:
    """Half of what took fewer steps than the mean."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return 0.5 if steps < mean_steps else 1.0


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("fewer", Fewer)


def test_an_asynchronous_worker_is_weighed_against_those_that_are_not_lost() -> None:
    """Of four and two steps; worker 1 is down from 5 s on, in its second job: then worker 0's factor is 4 / 4."""
    recording = run(weights="steps", policy={"name": "async_local_sgd", "outer": OUTER}, faults=crash(1, 5.0, 1e6))
    factors = [update.factor for update in recording.updates]
    assert factors[:3] == pytest.approx([4 / 3, 2 / 3, 1.0])
    assert set(factors[2:]) == {1.0}


def test_gradients_are_weighed_among_all_also_those_that_come_again() -> None:
    """By 3 and 1; worker 1's first gradient is lost with it. In step t, of rate 0.1: θ ← θ + 0.1 (1 − θ)."""
    weights = {"name": "by_worker", "workers": [3.0, 1.0]}
    recording = run(
        weights=weights, policy={"name": "data_parallel"}, faults=crash(1, 1.0, 1.0), budget={"local_steps": 4},
        plugins=["halos_data_parallel"],
    )  # fmt: skip
    assert [[update.factor for share in commit.shares for update in share.updates] for commit in recording.commits] == [
        [1.5, 0.5]
    ] * 2
    assert recording.thetas == pytest.approx([0.1, 0.19])


@pytest.mark.parametrize(
    "policy", [{"name": "diloco"}, {"name": "async_local_sgd"}, {"name": "halos", "local_updates": 2}]
)
def test_over_equal_steps_all_weights_are_one(policy: dict[str, Any]) -> None:
    final = []
    for name in ("uniform", "steps", "fednova"):
        recording = run(steps={"name": "fixed", "base": 3}, weights={"name": name}, policy=policy)
        final.append([commit.params.flat.tolist() for commit in recording.commits])  # type: ignore[union-attr]
    assert final[0] == final[1] == final[2]


def test_a_change_of_speed_in_the_middle_of_a_job_is_counted_from_that_moment() -> None:
    changes = [{"worker": 0, "at_seconds": 3.0, "speed": 0.5}, {"worker": 0, "at_seconds": 5.0, "speed": 2.0}]
    recording = run(compute={"name": "schedule", "changes": changes}, steps={"name": "fixed", "base": 6})
    # 3 s at 1, 2 s at ½, the last two seconds' worth at 2: 3 + 2 + 1.
    assert next(each.compute for each in recording.updates if each.worker == 0) == (0.0, 6.0)


def test_jitter_has_mean_one_and_the_spread_it_is_given_and_repeats() -> None:
    def times(seed: int) -> list[float]:
        recording = run(
            compute={"name": "jitter", "sigma": 0.5},
            executor={"name": "timing"},
            seed=seed,
            budget={"local_steps": 6000},
        )
        # Without it, 4 s each: four steps of 1 s, two of 2 s.
        return [(each.compute[1] - each.compute[0]) / 4 for each in recording.updates]

    first = times(1)
    assert first == times(1)
    assert first != times(2)
    assert np.mean(first) == pytest.approx(1.0, abs=4 * 0.53 / len(first) ** 0.5)
    assert np.std(np.log(first)) == pytest.approx(0.5, rel=0.05)


def test_stragglers_are_as_many_and_as_slow_as_configured() -> None:
    compute = {"name": "stragglers", "probability": 0.25, "factor": 3.0}
    recording = run(compute=compute, executor={"name": "timing"}, budget={"local_steps": 6000})
    times = [each.compute[1] - each.compute[0] for each in recording.updates]
    assert {round(each, 9) for each in times} == {4.0, 12.0}
    slow = np.mean([each > 8.0 for each in times])
    assert slow == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / len(times)) ** 0.5)


def test_jitter_may_be_of_another_model() -> None:
    of = {"name": "schedule", "changes": [{"worker": 0, "at_seconds": 0.0, "speed": 4.0}]}
    recording = run(compute={"name": "jitter", "sigma": 0.0, "of": of}, steps={"name": "fixed", "base": 4})
    assert next(each.compute for each in recording.updates if each.worker == 0) == (0.0, 1.0)


class TestSteps(StepsConformance):
    plugins = PLUGIN


class TestWeights(WeightsConformance):
    plugins = PLUGIN


class TestCompute(ComputeConformance):
    plugins = PLUGIN
    sections = (
        {"name": "schedule", "changes": [{"worker": 0, "at_seconds": 4.0, "speed": 0.5}]},
        {"name": "jitter", "of": {"name": "stragglers", "probability": 0.5}},
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": {"name": "measured", "base": 0}}, r"steps\.base: 0 is not a positive number"),
        ({"steps": {"name": "measured", "smoothing": 0.0}}, r"steps\.smoothing: 0.0 is not in \(0, 1\]"),
        ({"compute": {"name": "jitter", "sigma": -1}}, r"compute\.sigma: -1.0"),
        ({"compute": {"name": "stragglers", "probability": 2}}, r"compute\.probability: 2.0 is not in \[0, 1\]"),
        ({"compute": {"name": "stragglers", "factor": 0.5}}, r"compute\.factor: 0.5"),
        (
            {"compute": {"name": "schedule", "changes": [{"worker": 9, "at_seconds": 1, "speed": 1}]}},
            r"compute\.changes\[0\]\.worker: 9 is not a worker, 0 to 1",
        ),
        (
            {"compute": {"name": "schedule", "changes": [{"worker": 0, "at_seconds": 1, "speed": 0}]}},
            r"compute\.changes\[0\]\.speed: 0.0 is not a positive",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**changes)
