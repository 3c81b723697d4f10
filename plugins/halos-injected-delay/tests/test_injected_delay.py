"""Injected delay: rounds by hand, DiLoCo without delay, one-step-delay's parameters with any, who is late."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest
import torch

from halos.testing import Recording, record, tiny, two_workers
from halos.testing.conformance import PolicyConformance

PLUGINS = ["halos_injected_delay", "halos_one_step_delay"]
LOSING = str(Path(__file__).with_name("losing.py"))
AVERAGE = {"name": "sgd", "lr": 1.0}
NESTEROV = {"name": "nesterov", "lr": 0.3, "momentum": 0.5}
NOISY: dict[str, Any] = {
    "cluster": {"regions": [{"workers": [1.0, 0.9]}, {"workers": [0.6, 0.8]}], "step_time_ms": 1000.0},
    "network": {"bandwidth_gbps": 1e-7},  # an all-reduce takes 2.9 s
    "model": {"name": "quadratic", "size": 6, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3, 4, 5, 6]},
    "train": {
        "batch_size": 1,
        "optimizer": {"name": "adamw", "lr": 0.05},
        "schedule": {"name": "warmup_cosine", "warmup": 6, "total": 40},
        "clip": 1.0,
    },
    "compute": {"name": "testing_jitter"},
    "steps": {"base": 4},
    "budget": {"local_steps": 128},
}


def by_hand(rounds: int, outer: Optional[dict[str, Any]] = None, **policy: Any) -> Recording:
    """On one parameter, of whose way to 1 a round leaves worker 0 .81 and worker 1 .9."""
    return record(two_workers(rounds, policy={"name": "injected_delay", "outer": outer or AVERAGE, **policy}), PLUGINS)


def noisy(
    name: str, outer: Optional[dict[str, Any]] = None, changes: Optional[dict[str, Any]] = None, **policy: Any
) -> Recording:
    """Eight rounds of four unequal workers on noisy gradients, by AdamW, over slow links."""
    section = {"name": name, "outer": outer or NESTEROV, **policy}
    return record(tiny(**NOISY) | {"policy": section} | (changes or {}), [*PLUGINS, "halos.testing.situations", LOSING])


def told(recording: Recording) -> list[tuple[str, str]]:
    """All that its observers heard, in order."""
    return [(type(each).__name__, each.as_json()) for each in recording.heard if hasattr(each, "as_json")]


def models(recording: Recording) -> list[list[float]]:
    return [commit.params.flat.tolist() for commit in recording.global_commits]  # type: ignore[union-attr]


def test_three_rounds_a_round_late_by_hand() -> None:
    """Means Δ̄ = −.145 (1 − start). Rounds 1 and 2 begin at 0; round 3 at .145, after which −.145 is applied again.

    Then the last: −.145 · .855 = −.123975, from .145 to .29.
    """
    recording = by_hand(rounds=3, outer_delay=1)
    assert [commit.time for commit in recording.commits] == [4.0, 6.0, 6.0]  # none after round 1, at 2 s
    assert recording.thetas == pytest.approx([0.145, 0.29, 0.413975], abs=1e-12)
    assert [share.hop_staleness for commit in recording.commits for share in commit.shares] == [0, 0, 1, 1, 1, 1]
    drifts = [share.hop_drift for commit in recording.commits for share in commit.shares]
    assert drifts == pytest.approx([0, 0, 0.145, 0.145, 0.145, 0.145], abs=1e-12)
    assert [way.seconds for commit in recording.commits for way in commit.shares[0].end_to_end] == [4.0, 4.0, 2.0]


def test_four_rounds_two_late_with_momentum_by_hand() -> None:
    """lr .2, μ .5. Rounds 1 to 3 begin at 0: −.145 each. v = −.145, θ = .2 (.145 + .0725) = .0435: round 4 from there.

    v = −.2175, θ = .0435 + .2 (.145 + .10875) = .09425; v = −.25375, θ += .2 (.145 + .126875) = .148625; and round 4's
    Δ̄ = −.145 · .9565 = −.1386925: v = −.2655675, θ += .2 (.1386925 + .13278375).
    """
    recording = by_hand(4, {"name": "nesterov", "lr": 0.2, "momentum": 0.5}, outer_delay=2)
    assert [commit.time for commit in recording.commits] == [6.0, 8.0, 8.0, 8.0]
    assert recording.thetas == pytest.approx([0.0435, 0.09425, 0.148625, 0.20292025], abs=1e-12)


@pytest.mark.parametrize("late", [{}, {"late": 0.0}, {"late": 0.5, "redraw": True}])
@pytest.mark.parametrize("outer", [NESTEROV, {"name": "adam", "lr": 0.05}])
def test_without_delay_it_is_diloco_in_all_that_is_recorded(outer: dict[str, Any], late: dict[str, Any]) -> None:
    ours, diloco = noisy("injected_delay", outer, outer_delay=0, **late), noisy("diloco", outer)
    assert told(ours) == told(diloco)
    assert models(ours) == models(diloco)


def test_if_nobody_is_late_it_is_diloco_whatever_the_delay() -> None:
    ours, diloco = noisy("injected_delay", outer_delay=3, late=0.0), noisy("diloco")
    assert told(ours) == told(diloco)


@pytest.mark.parametrize("faults", [{"name": "losing", "messages": [1, 5, 8, 9, 10, 11]}, {"name": "crashes"}])
def test_without_delay_it_is_diloco_under_faults_as_well(faults: dict[str, Any]) -> None:
    if faults["name"] == "crashes":
        faults |= {"between_failures_hours": 0.01, "to_repair_hours": 0.002}
    ours = noisy("injected_delay", changes={"faults": faults}, outer_delay=0)
    diloco = noisy("diloco", changes={"faults": faults})
    assert told(ours) == told(diloco)
    assert diloco.simulation.faults.lost() != {"jobs": 0, "messages": 0}


def test_a_mean_that_nobody_was_heard_of_makes_no_step_later_either() -> None:
    """Messages 2 and 3 are lost, those of round 2: its mean is none, so there is no step a round later, at 6 s.

    Round 3 begins, one by one, where round 2 ended, and brings both: 1 − .81² and 1 − .9², counted from θ = .145, so
    −(.3439 − .145) and −(.19 − .145), mean −.12195, which is applied when a fourth round has ended.
    """
    faults = {"name": "losing", "messages": [2, 3]}
    policy = {"name": "injected_delay", "outer": AVERAGE, "outer_delay": 1}
    recording = record(two_workers(3, policy=policy, faults=faults), [*PLUGINS, LOSING])
    assert [commit.time for commit in recording.commits] == [4.0, 8.0]
    assert recording.thetas == pytest.approx([0.145, 0.26695], abs=1e-12)
    assert [commit.local_steps for commit in recording.commits] == [3, 9]


@pytest.mark.parametrize("delay", [1, 2, 5])
def test_time_and_samples_are_dilocos_with_any_delay(delay: int) -> None:
    ours, diloco = noisy("injected_delay", outer_delay=delay), noisy("diloco")
    begun = [(each.worker, each.start_time, each.time, each.samples, each.lr_step) for each in ours.updates]
    assert begun == [(each.worker, each.start_time, each.time, each.samples, each.lr_step) for each in diloco.updates]
    assert ours.transfers == diloco.transfers
    assert len(ours.transfers) == 8
    times = [commit.time for commit in diloco.commits]
    assert [commit.time for commit in ours.commits] == times[delay:] + [times[-1]] * delay


@pytest.mark.parametrize("outer", [NESTEROV, {"name": "adam", "lr": 0.05}])
@pytest.mark.parametrize("delay", [0, 1, 2, 4])
def test_parameters_are_those_of_one_step_delay(delay: int, outer: dict[str, Any]) -> None:
    """On each worker's own samples: who goes on when is another matter, and so is who gets the next ones."""
    own = {"data": {**tiny()["data"], "shards": "iid"}} if delay else {}
    ours, overlapped = (noisy(name, outer, own, outer_delay=delay) for name in ("injected_delay", "one_step_delay"))
    assert models(ours) == models(overlapped)
    assert len(models(ours)) == 8
    assert ours.commits[-1].time > overlapped.commits[-1].time or delay == 0


@pytest.mark.parametrize("delay", [1, 3])
def test_on_a_linear_loss_a_round_is_dilocos_so_many_rounds_later(delay: int) -> None:
    linear = {"name": "quadratic", "size": 6, "curvature": 0.0, "noise": 1.0, "dtype": "float64"}
    changes = {"model": linear, "train": tiny()["train"]}
    ours, diloco = noisy("injected_delay", changes=changes, outer_delay=delay), noisy("diloco", changes=changes)
    for mine, theirs in zip(ours.global_commits, diloco.global_commits, strict=True):
        torch.testing.assert_close(mine.params.flat, theirs.params.flat, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.commits[0].time, diloco.commits[delay].time)


# Who is late.


def test_one_of_two_late_by_hand() -> None:
    """Three rounds, k = 1, one worker late, the means plain: of the other alone in round 1, and of the late one last.

    Worker 1 late: Δ = −.19 from 0; −.1539 from .19 with −.1 from 0; −.19 · .68305 from .31695 with −.081 from .19; and
    −.1 · .68305. Worker 0 late: −.1; −.09 with −.19; −.076 with −.19 · .9; −.19 · .76.
    """
    recording = by_hand(rounds=3, outer_delay=1, late=0.5)
    (first,) = recording.commits[0].shares
    expected = {
        0: [0.19, 0.31695, 0.42233975, 0.49064475],  # worker 0 is not late
        1: [0.1, 0.24, 0.3635, 0.5079],
    }[first.updates[0].worker]
    assert recording.thetas == pytest.approx(expected, abs=1e-12)
    stale = [sorted(share.hop_staleness for share in commit.shares) for commit in recording.commits]
    assert stale == [[0], [0, 1], [0, 1], [1]]


def late_in(recording: Recording) -> list[set[int]]:
    """By round, whose updates were not committed in it."""
    rounds = [recording.updates[index : index + 4] for index in range(0, len(recording.updates), 4)]
    taken = [{update.id for share in commit.shares for update in share.updates} for commit in recording.commits]
    return [{each.worker for each in updates if each.id not in ids} for updates, ids in zip(rounds, taken)]


def test_as_many_are_late_as_was_asked_for_and_the_same_unless_they_are_drawn_anew() -> None:
    fixed = late_in(noisy("injected_delay", outer_delay=2, late=0.5))
    redrawn = late_in(noisy("injected_delay", outer_delay=2, late=0.5, redraw=True))
    assert [len(each) for each in fixed] == [len(each) for each in redrawn] == [2] * 8
    assert fixed == [fixed[0]] * 8
    assert len({frozenset(each) for each in redrawn}) > 1
    others = {frozenset(late_in(noisy("injected_delay", late=0.25, seed=seed))[0]) for seed in range(12)}
    assert len(others) > 1


@pytest.mark.parametrize("redraw", [False, True])
def test_every_step_is_merged_once_however_late(redraw: bool) -> None:
    recording = noisy("injected_delay", outer_delay=3, late=0.5, redraw=redraw)
    ledger = recording.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (128, 128, 0)
    assert len(recording.commits) == 8 + 3  # of late ones alone, three at the end


def test_late_messages_travel_late() -> None:
    """Four workers, two of them late by two rounds: collectives of two, two, six of four, and two of two at the end."""
    recording = noisy("injected_delay", outer_delay=2, late=0.5)
    payload = 6 * 4  # bytes; the links of a ring of M carry 2 (M − 1) payloads
    assert [each.bytes for each in recording.transfers] == [2 * payload] * 2 + [6 * payload] * 6 + [2 * payload] * 2


class TestConformance(PolicyConformance):
    plugins = PLUGINS[:1]
    sections = (
        {"name": "injected_delay", "outer_delay": 1, "outer": {"lr": 0.2, "momentum": 0.5}},
        {"name": "injected_delay", "outer_delay": 3, "outer": {"name": "sgd", "lr": 1.0}},
        {"name": "injected_delay", "outer_delay": 2, "outer": {"name": "sgd", "lr": 1.0}, "late": 0.5, "redraw": True},
    )

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> Optional[float]:
        """DiLoCo's, unless single messages are late."""
        return None if "late" in section else rounds * (compute + all_reduce)
