"""A-EDiT: timelines by hand, ceilings, identities with DiLoCo, weights by steps, what is left out when."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from halos import Update
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance

PLUGIN = [
    "halos_edit",
    "halos_robust_aggregation",
    "halos_heterogeneous_steps",
    str(Path(__file__).with_name("every_other.py")),
]
CURVED = {"name": "quadratic", "size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]}
SGD = {"name": "sgd", "lr": 1.0}


def edit(seconds: float, least: int = 0, **options: Any) -> dict[str, Any]:
    return {"name": "a_edit", "every_seconds": seconds, "least_steps": least, "outer": SGD} | options


def run(policy: dict[str, Any], *speeds: float, steps: int, milliseconds: float = 1000.0, **changes: Any) -> Recording:
    """A quadratic with its optimum at 1, from 0; local steps of 1 s at speed 1, communication for nothing."""
    sections = tiny(
        model={"dtype": "float64", "size": 1},
        cluster={"regions": [{"workers": list(speeds)}], "step_time_ms": milliseconds},
        data={"shards": "iid"},
        policy=policy,
        budget={"local_steps": steps},
    )
    return record(sections | changes, PLUGIN)


def jobs(recording: Recording) -> dict[int, list[tuple[int, float, float]]]:
    """By worker, its jobs: local steps, begin, end."""
    found: dict[int, list[tuple[int, float, float]]] = {}
    for update in sorted(recording.updates, key=lambda update: update.id):
        found.setdefault(update.worker, []).append((update.steps, update.start_time, round(update.time, 9)))
    return found


def models(recording: Recording) -> list[Any]:
    return [commit.params.flat.numpy() for commit in recording.global_commits]  # type: ignore[union-attr]


class TestConformance(PolicyConformance):
    plugins = PLUGIN[:1]
    sections: ClassVar[Any] = ({"name": "a_edit", "every_seconds": 2.0, "least_steps": 0},)


# Time


def test_three_workers_take_as_many_steps_as_reach_t() -> None:
    """T = 5 s; steps of 1, 4/3 and 2 s: ⌈5⌉, ⌈3.75⌉, ⌈2.5⌉. Who waits has so much less of the next T."""
    recording = run(edit(5.0), 1.0, 0.75, 0.5, steps=33)
    third = 4 / 3
    assert jobs(recording) == {
        0: [(5, 0.0, 5.0), (4, 6.0, 10.0), (3, 12.0, 15.0)],
        # It comes at 16/3: from 6 on to 31/3 are 3.25 steps; then at 34/3, from 12 on to 49/3 again.
        1: [(4, 0.0, round(4 * third, 9)), (4, 6.0, round(6 + 4 * third, 9)), (4, 12.0, round(12 + 4 * third, 9))],
        2: [(3, 0.0, 6.0), (3, 6.0, 12.0), (3, 12.0, 18.0)],
    }
    assert [commit.time for commit in recording.commits] == pytest.approx([6.0, 12.0, 18.0], abs=1e-9)


@pytest.mark.parametrize(
    ("all_reduce", "ends", "steps"),
    [
        (2.0, [7.0, 12.0, 17.0], [5, 3, 3]),  # 5 s from the decision, of which the average takes 2
        (7.0, [12.0, 20.0, 28.0], [5, 1, 1]),  # T is over when it is there: one step, as always
    ],
)
def test_what_an_average_takes_is_part_of_the_next_t(all_reduce: float, ends: list[float], steps: list[int]) -> None:
    bits = 2 * 1 / 2 * 8e6  # of an all-reduce of 1 MB between two
    recording = run(
        edit(5.0),
        1.0,
        1.0,
        steps=2 * sum(steps),
        model={"name": "sized", "parameters": 250_000},
        executor={"name": "timing"},
        network={"bandwidth_gbps": bits / all_reduce / 1e9},
    )
    assert [commit.time for commit in recording.commits] == pytest.approx(ends, abs=1e-9)
    assert [steps for steps, _, _ in jobs(recording)[0]] == steps


def test_speeds_that_change_in_the_middle_of_a_job_are_seen() -> None:
    """Steps of 1 s until 3 s, then of 2 s; T = 5: boundaries 1, 2, 3, 5; 7, 9, 11 (10 is wanted); 13, 15, 17 (16)."""
    schedule = {"name": "schedule", "changes": [{"worker": 0, "at_seconds": 3.0, "speed": 0.5}]}
    recording = run(edit(5.0), 1.0, steps=10, compute=schedule)
    assert jobs(recording) == {0: [(4, 0.0, 5.0), (3, 5.0, 11.0), (3, 11.0, 17.0)]}


def test_under_jitter_everybody_stops_at_its_first_step_at_or_after_t() -> None:
    speeds = (1.0, 0.6, 0.35)
    recording = run(
        edit(7.0), *speeds, steps=300, compute={"name": "jitter", "sigma": 0.5}, executor={"name": "timing"}
    )
    came, short, counted = dict.fromkeys(range(3), 0.0), 0, 0
    by_worker: dict[int, list[Update]] = {}
    for update in sorted(recording.updates, key=lambda update: update.id):
        by_worker.setdefault(update.worker, []).append(update)
    for worker, updates in by_worker.items():
        for update in updates:
            step = (update.time - update.start_time) / update.steps
            due = came[worker] + 7.0
            assert update.time >= due - 1e-9
            assert update.steps == 1 or update.time - step < due
            short += update.time - due > 0.1
            counted += 1
            came[worker] = update.time
    assert counted > 30 and short > 10  # they do not end at T by themselves


# Identities


@pytest.mark.parametrize("milliseconds", [1000.0, 100.0])  # seven steps of .1 s are not quite .7 s
@pytest.mark.parametrize("aggregate", [{"name": "mean"}, {"name": "edit", "temperature": float("inf"), "warmup": None}])
def test_of_equal_workers_and_equal_weights_it_is_diloco(aggregate: dict[str, Any], milliseconds: float) -> None:
    outer = {"name": "nesterov", "lr": 0.7, "momentum": 0.8}
    same: dict[str, Any] = {"steps": 3 * 7 * 6, "milliseconds": milliseconds, "model": CURVED}
    ours = run(edit(7 * milliseconds / 1000, outer=outer), 1.0, 1.0, 1.0, aggregate=aggregate, **same)
    allocation = {"name": "fixed", "base": 7}
    sections = {"name": "diloco", "outer": outer}
    budget = {"local_steps": same["steps"]}
    theirs = record(
        tiny(
            cluster={"regions": [{"workers": [1.0, 1.0, 1.0]}], "step_time_ms": milliseconds},
            model=CURVED,
            data={"shards": "iid"},
            steps=allocation,
            policy=sections,
            budget=budget,
        ),
        PLUGIN,
    )
    assert len(ours.commits) == len(theirs.commits) == 6
    np.testing.assert_allclose(models(ours), models(theirs), rtol=0, atol=0 if aggregate["name"] == "mean" else 1e-14)


@pytest.mark.parametrize(
    "aggregate", [{"name": "mean"}, {"name": "edit", "by_steps": 1.0, "warmup": None}], ids=lambda each: each["name"]
)
def test_weights_are_everybodys_steps_since_the_start_of_the_run(aggregate: dict[str, Any]) -> None:
    """T = 3 s, steps of 1 and 2 s: 3 and 2 of them, until 3 and 4; then until 6 and 8, 2 and 2: together 5 and 4."""
    recording = run(edit(3.0), 1.0, 0.5, steps=9, aggregate=aggregate)
    assert jobs(recording) == {0: [(3, 0.0, 3.0), (2, 4.0, 6.0)], 1: [(2, 0.0, 4.0), (2, 4.0, 8.0)]}
    first = (3 * (1 - 0.9**3) + 2 * (1 - 0.9**2)) / 5
    second = first + (5 * 0.19 + 4 * 0.19) / 9 * (1 - first)
    assert recording.thetas == pytest.approx([first, second], abs=1e-14)


def test_half_by_steps_and_half_by_norms_as_published() -> None:
    """T = 4 s: Δ of 4 and 2 steps, .3439 and .19; softmax of their negatives .4616 and .5384, steps 2/3 and 1/3."""
    recording = run(edit(4.0), 1.0, 0.5, steps=6, aggregate={"name": "edit", "by_steps": 0.5, "warmup": None})
    soft = 1 / (1 + np.exp(0.3439 - 0.19))
    assert soft == pytest.approx(0.4616, abs=5e-5)
    weight = 0.5 * soft + 0.5 * 2 / 3
    assert recording.thetas == pytest.approx([weight * 0.3439 + (1 - weight) * 0.19], abs=1e-12)


# What is left out


def test_with_too_few_steps_nothing_is_exchanged_and_every_t_begins_anew() -> None:
    """T = 2.5 s, steps of 1 and 2 s: 3 and 2, five of seven wanted. All begin anew at 4, when the last has come."""
    recording = run(edit(2.5, 7), 1.0, 0.5, steps=10)
    # From 4 to 6.5 they take 3 and 2 steps again, until 7 and 8; without the fresh start it would be 2 and 1.
    assert jobs(recording) == {0: [(3, 0.0, 3.0), (3, 4.0, 7.0)], 1: [(2, 0.0, 4.0), (2, 4.0, 8.0)]}
    (commit,) = recording.commits
    assert commit.time == 8.0 and [share.steps for share in commit.shares] == [6, 4]
    # Each from its own parameters: six and four steps from 0, weighed 6 : 4.
    assert recording.thetas == pytest.approx([(6 * (1 - 0.9**6) + 4 * (1 - 0.9**4)) / 10], abs=1e-14)


def test_the_first_average_after_a_warmup_is_left_out() -> None:
    """Three data-parallel steps of all, then 2 s, then 2 s more until the first average at 7 s."""
    recording = run(edit(2.0, warmup_steps=3), 1.0, 1.0, steps=14)
    assert [(commit.time, commit.local_steps) for commit in recording.commits] == [(1, 2), (2, 4), (3, 6), (7, 14)]
    assert recording.thetas == pytest.approx([1 - 0.9**n for n in (1, 2, 3, 7)], abs=1e-14)


def test_where_nothing_is_left_there_is_no_outer_step() -> None:
    """Of every second average nothing: momentum stays as it was, and the model goes on as if it had not been."""
    outer = {"name": "nesterov", "lr": 0.5, "momentum": 0.8}
    recording = run(edit(2.0, outer=outer), 1.0, steps=10, aggregate={"name": "every_other"})
    theta, velocity, expected = 0.0, 0.0, []
    for index in range(5):
        if index % 2 == 0:
            delta = 0.19 * (theta - 1)
            velocity = 0.8 * velocity + delta
            theta -= 0.5 * (delta + 0.8 * velocity)
        expected.append(theta)
    assert recording.thetas == pytest.approx(expected, abs=1e-14)
    assert [commit.local_steps for commit in recording.commits] == [2, 4, 6, 8, 10]


def test_under_faults_it_goes_on_without_what_is_lost() -> None:
    crash = {"name": "crashes", "between_failures_hours": 0.02, "to_repair_hours": 0.003}
    faults = {"name": "several", "of": [crash, {"name": "message_loss", "probability": 0.1}]}
    recording = run(edit(5.0), 1.0, 0.75, 0.5, steps=400, faults=faults)
    ledger = recording.simulation.ledger
    assert ledger.lost > 0 and recording.simulation.faults.lost()["messages"] > 0
    assert ledger.committed >= 400 and recording.thetas[-1] == pytest.approx(1.0, abs=1e-3)


def test_if_all_are_down_too_few_steps_wait_for_the_first_that_is_back() -> None:
    """Both lose their first job at 2 s. The one that is back at 5 has taken 1, 3 and 3 steps at 6, 9 and 12: seven."""
    at = [{"worker": 0, "at_seconds": 2.0, "seconds": 3.0}, {"worker": 1, "at_seconds": 2.0}]
    recording = run(edit(2.5, 5), 1.0, 1.0, steps=7, faults={"name": "crashes", "at": at})
    (commit,) = recording.commits
    assert commit.time == 12.0 and [share.steps for share in commit.shares] == [7]
    assert recording.thetas == pytest.approx([1 - 0.9**7], abs=1e-14)
