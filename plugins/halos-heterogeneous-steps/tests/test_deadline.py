"""Deadlines: steps that fit into a round's time by hand, and how long anybody then waits."""

from __future__ import annotations

from typing import Any

import pytest

from halos import ConfigError, Deadlock, UserError
from halos.testing import Recording, record, tiny

PLUGINS = ["halos_heterogeneous_steps", "halos_one_step_delay", "halos_codecs"]


def run(steps: dict[str, Any], **changes: Any) -> Recording:
    """Workers of 1, 2 and 3 s a step in two regions; 2 parameters said to weigh 1 Gbit, over 1 Gbit/s."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.5]}, {"workers": [1 / 3]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1.0},
        model={"wire_bytes": 125_000_000},
        steps={"name": "deadline", **steps},
        budget={"local_steps": 30},
    )
    return record(sections | changes, PLUGINS)


def steps_of(recording: Recording) -> dict[int, int]:
    """The first job's steps, by worker."""
    return {each.worker: each.steps for each in sorted(recording.updates, key=lambda u: -u.id)}


def test_steps_are_what_fits_beside_the_all_reduce() -> None:
    # The ring of 3 workers takes 2 · 2/3 · 1 Gbit / 1 Gbit/s = 4/3 s, so 10 s leave 8 2/3: 8, 4 and 2 steps.
    recording = run({"seconds": 10.0})
    assert steps_of(recording) == {0: 8, 1: 4, 2: 2}
    assert recording.global_commits[0].time == pytest.approx(8 + 4 / 3, abs=1e-9)


def over_a_link_that_dies(at: float) -> Recording:
    """Two workers of 1 s a step, rounds of 4 s; the link from one to the other carries nothing from `at` on."""
    cluster = {"regions": [{"name": "a", "workers": [1.0]}, {"name": "b", "workers": [1.0]}], "step_time_ms": 1000.0}
    dies = [{"time_s": at, "link": "a->b", "gbps": 0.0}]
    network = {"name": "shared_links", "backbone_gbps": 1.0, "changes": dies}
    return run({"seconds": 4.0}, cluster=cluster, network=network)


def test_an_exchange_that_never_ends_leaves_no_time_for_a_first_round() -> None:
    # The ring of 2 workers takes 2 · 1/2 · 1 Gbit / 1 Gbit/s = 1 s, and from 0 s on there is half of that.
    with pytest.raises(ConfigError) as raised:
        over_a_link_that_dies(0.5)
    assert str(raised.value) == "steps.seconds: no round is long enough for worker 0: its exchange never ends"


def test_one_that_never_ends_later_leaves_a_step() -> None:
    # 3 steps and 1 s of exchange, to 4 s. What begins then has no end: a step, to 5 s, and nothing gets through.
    with pytest.raises(Deadlock, match=r"at 5 s, .* nothing gets through a->b any more"):
        over_a_link_that_dies(4.5)


def test_payloads_that_cannot_be_summed_take_an_all_gather() -> None:
    # All entries with their indices weigh twice fp32's, 2 Gbit: from each of two others that is 4 s, and 6 s are left.
    recording = run({"seconds": 10.0}, codec={"name": "topk", "fraction": 1.0})
    assert steps_of(recording) == {0: 6, 1: 3, 2: 2}
    assert recording.global_commits[0].time == pytest.approx(6 + 4, abs=1e-9)


def test_an_asynchronous_worker_is_spared_its_own_pull_and_push() -> None:
    policy = {"name": "async_local_sgd"}
    to_region_0 = run({"seconds": 10.0, "exchange": "round_trip", "server_region": 0}, policy=policy)
    assert steps_of(to_region_0) == {0: 8, 1: 4, 2: 2}  # 10 s − 1 s − 1 s
    hidden = run({"seconds": 10.0, "exchange": "none"}, policy=policy)
    assert steps_of(hidden) == {0: 10, 1: 5, 2: 3}


def test_a_time_that_fits_to_the_last_bit_fits() -> None:
    steps = {"seconds": 0.3, "exchange": "none"}
    cluster = {"regions": [{"workers": [1.0]}], "step_time_ms": 100.0}
    assert steps_of(run(steps, cluster=cluster))[0] == 3  # 0.3 / 0.1 is 2.9999… in binary


def test_steps_that_fit_on_paper_fit_beside_an_exchange_that_leaves_little() -> None:
    # Of 0.3 s an all-reduce of two takes 0.1 s: 0.2 s are left for steps of 0.1 s, though 0.3 − 0.1 is below 0.2.
    assert 0.3 - 0.1 < 0.2
    cluster = {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 100.0}
    for whole, expected in ((0.3, 2), (0.29, 1), (1e6, 9_999_999)):
        tenth = run({"seconds": whole}, cluster=cluster, network={"bandwidth_gbps": 10.0}, executor={"name": "timing"})
        assert steps_of(tenth)[0] == expected


def test_the_time_that_is_said_to_be_enough_is() -> None:
    cluster = {"regions": [{"workers": [1.0]}], "step_time_ms": 238.3914999}
    with pytest.raises(ConfigError, match=r"give at least 0\.238392$"):
        run({"seconds": 0.1, "exchange": "none"}, cluster=cluster)
    assert steps_of(run({"seconds": 0.238392, "exchange": "none"}, cluster=cluster))[0] == 1


@pytest.mark.parametrize("allocation", [{"name": "deadline", "seconds": 2e-12}, {"name": "measured", "base": 2}])
def test_speeds_are_measured_of_jobs_that_do_not_move_the_clock(allocation: dict[str, Any]) -> None:
    """A step takes 1e-12 s, or 2e-12 s, and a round trip 1e12 s, to which that makes no difference."""
    policy = {"name": "async_local_sgd"}
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1e-9}, network={"latency_ms": 5e14},
        policy=policy, steps={"exchange": "none"} | allocation if allocation["name"] == "deadline" else allocation,
        budget={"local_steps": 12},
    )  # fmt: skip
    recording = record(sections, PLUGINS)
    assert {each.compute[1] - each.compute[0] for each in recording.updates} == {0.0}
    assert [(each.worker, each.steps) for each in recording.updates][2:6] == [(0, 2), (1, 1)] * 2


SPEEDS = [1.0, 0.83, 0.61, 0.5, 0.37, 0.29, 0.2, 0.16]


@pytest.mark.parametrize("seconds", [9.0, 30.0, 61.7])
@pytest.mark.parametrize("policy", ["diloco", "one_step_delay"])
def test_nobody_is_idle_longer_than_one_of_its_local_steps(seconds: float, policy: str) -> None:
    recording = run(
        {"seconds": seconds},
        cluster={"regions": [{"workers": SPEEDS}], "step_time_ms": 1000.0},
        policy={"name": policy},
        budget={"local_steps": 1000},
    )
    # In a round, between the end of a worker's steps and the end of the last worker's.
    rounds: dict[int, list[Any]] = {}
    counts = dict.fromkeys(range(len(SPEEDS)), 0)
    for update in recording.updates:
        rounds.setdefault(counts[update.worker], []).append(update)
        counts[update.worker] += 1
    assert len(rounds) > 1
    for updates in rounds.values():
        busy = {each.worker: each.compute[1] - each.compute[0] for each in updates}
        for worker, time in busy.items():
            assert max(busy.values()) - time < 1.0 / SPEEDS[worker]


def test_steps_follow_a_change_of_speed() -> None:
    """Worker 0 is half as fast from 25 s on: from the round after it has shown that, half as many steps fit."""
    recording = run(
        {"seconds": 10.0, "exchange": "none"},
        cluster={"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": float("inf")},
        compute={"name": "schedule", "changes": [{"worker": 0, "at_seconds": 20.0, "speed": 0.5}]},
        budget={"local_steps": 80},
    )
    shown = [each.steps for each in sorted(recording.updates, key=lambda u: u.id) if each.worker == 0]
    assert shown == [10, 10, 10, 5, 5]


def test_a_round_too_short_for_one_step_is_refused() -> None:
    with pytest.raises(UserError, match=r"steps\.seconds: 3 s is too short a round for worker 1.* at least 3\.33334$"):
        run({"seconds": 3.0})


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"seconds": 0.0}, r"steps\.seconds: 0\.0 is not a positive time, of 1e9 at most"),
        ({"exchange": "gossip"}, r"steps\.exchange: 'gossip' is not one of all_reduce, round_trip, none"),
        ({"server_region": 7}, r"steps\.server_region: 7 is not a region, 0 to 1, or null"),
        ({"smoothing": 0.0}, r"steps\.smoothing: 0\.0 is not in \(0, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(steps: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(steps)


def test_overlapped_rounds_weigh_contributions_by_their_own_round() -> None:
    """Steps that change from round to round: weights `steps` are H_i over the mean of the same round's jobs."""
    recording = run(
        {"seconds": 10.0, "exchange": "none"},
        cluster={"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 0.2},
        compute={"name": "schedule", "changes": [{"worker": 0, "at_seconds": 15.0, "speed": 0.25}]},
        policy={"name": "one_step_delay"},
        weights={"name": "steps"},
        budget={"local_steps": 90},
    )
    by_worker: dict[int, list[Any]] = {0: [], 1: []}
    for each in sorted(recording.updates, key=lambda u: u.id):
        by_worker[each.worker].append(each)
    rounds = list(zip(by_worker[0], by_worker[1]))
    assert len({(a.steps, b.steps) for a, b in rounds}) > 1, "the steps must change for this to show anything"
    for a, b in rounds:
        half = (a.steps + b.steps) / 2
        assert (a.factor, b.factor) == (pytest.approx(a.steps / half), pytest.approx(b.steps / half))
