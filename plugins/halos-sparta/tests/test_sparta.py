"""SPARTA: what is averaged when, identities, bytes and times, and what faults leave of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from halos import Lost, Params, Simulation, Update, UserError, all_of, mean
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance
from halos.testing.resuming import problem

PLUGIN = ["halos_sparta", "halos_data_parallel"]
WORKERS = 3


def run(steps: int = 6, size: int = 10, base: int = 1, instead: Any = None, **changes: Any) -> Recording:
    """Three workers on noisy gradients, a parameter of which takes a step of a tenth of the way and the noise."""
    several = {name: changes.pop(name) for name in ("share", "delay", "outer") if name in changes}
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * WORKERS}], "step_time_ms": 1000.0},
        model={"name": "quadratic", "size": size, "noise": 0.5, "dtype": "float64"},
        data={"samples": 4096, "validation_samples": 1},
        steps={"base": base},
        policy={"name": "sparta", **several},
        budget={"local_steps": steps * WORKERS},
    )
    return record(sections | changes, PLUGIN, instead)


def flat(params: Params) -> torch.Tensor:
    assert params.flat is not None
    return params.flat


def starts(recording: Recording) -> torch.Tensor:
    """Where every worker began every step: [steps, workers, P]."""
    return torch.stack([flat(update.start) for update in in_order(recording)]).unflatten(0, (-1, WORKERS))


def ends(recording: Recording) -> torch.Tensor:
    """Where these steps led, as `starts`."""
    return torch.stack([flat(update.params) for update in in_order(recording)]).unflatten(0, (-1, WORKERS))


def in_order(recording: Recording) -> list[Update]:
    return sorted(recording.updates, key=lambda update: update.id)


def test_after_every_step_the_share_is_the_mean_for_all_and_the_rest_is_ones_own() -> None:
    recording = run(steps=8, share=0.3)
    began, ended = starts(recording)[1:], ends(recording)[:-1]
    masks = set()
    for before, after in zip(ended, began):
        averaged = (before != after).all(0)
        assert int(averaged.sum()) == 3  # of ten
        torch.testing.assert_close(after[:, averaged], before[:, averaged].mean(0).expand(WORKERS, -1))
        assert torch.equal(after[:, averaged], after[:1, averaged].expand(WORKERS, -1))  # to the bit
        assert torch.equal(after[:, ~averaged], before[:, ~averaged])
        masks.add(tuple(averaged.tolist()))
    assert len(masks) > 1


def test_the_first_three_steps_by_hand() -> None:
    """One parameter, inner SGD of rate 0.1, no noise but that of where they are: 0, then 0.1, then 0.19."""
    recording = run(steps=3, size=1, share=1.0, model={"name": "quadratic", "size": 1, "dtype": "float64"})
    assert recording.thetas == pytest.approx([0.1, 0.19, 0.271], abs=1e-15)
    assert [commit.local_steps for commit in recording.global_commits] == [3, 6, 9]


def test_a_mean_that_comes_late_moves_everybody_by_what_it_was_off_when_it_sent() -> None:
    """τ = 2: between steps worker i moves by ȳ − y_i, y_i its parameters when it had taken two steps less."""
    recording = run(steps=9, share=0.2, delay=2)
    began, ended = starts(recording), ends(recording)
    for t in range(1, 9):
        moved = began[t] - ended[t - 1]
        averaged = (moved != 0).any(0)
        if t - 3 < 0:
            assert not averaged.any()
            continue
        assert 1 <= int(averaged.sum()) <= 2
        y = began[t - 2][:, averaged]
        torch.testing.assert_close(moved[:, averaged], y.mean(0) - y)


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_no_merge_moves_the_mean_of_the_workers(delay: int) -> None:
    recording = run(steps=12, share=0.4, delay=delay)
    torch.testing.assert_close(starts(recording)[1:].mean(1), ends(recording)[:-1].mean(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("delay", [0, 3])
def test_one_worker_alone_trains_on_as_if_nobody_averaged(delay: int) -> None:
    one = {"cluster": {"regions": [{"workers": [1.0]}]}, "budget": {"local_steps": 9}}
    ours = run(share=0.5, delay=delay, **one)
    plain = run(share=0.0, **one)
    assert ours.thetas == pytest.approx(plain.thetas, abs=1e-12)


@dataclass
class Independent:
    """Everybody trains for itself, a step at a time."""

    async def run(self, sim: Simulation) -> None:
        x = {worker.id: sim.params for worker in sim.workers}
        for r in sim.rounds():
            updates = await all_of([sim.train(worker, x[worker.id], 1, round=r) for worker in sim.workers])
            x = {update.worker: update.params for update in updates}
            sim.commit(mean(x.values()), updates)


def test_without_a_share_workers_are_independent_bit_for_bit_and_end_with_a_full_average() -> None:
    ours, theirs = run(steps=7, share=0.0), run(steps=7, instead=Independent())
    assert torch.equal(starts(ours), starts(theirs)) and torch.equal(ends(ours), ends(theirs))
    assert [each.kind for each in ours.transfers] == ["all_reduce"]  # the full one
    assert ours.thetas[-1] == pytest.approx(theirs.thetas[-1], abs=1e-15)


def test_with_all_of_it_and_plain_inner_steps_it_is_data_parallel_training() -> None:
    """mean (x − lr g_i) = x − lr mean g_i, to rounding; on a quadratic the mean alone would be so with any share."""
    ours, theirs = run(steps=9, share=1.0), run(steps=9, policy={"name": "data_parallel"})
    assert len(ours.global_commits) == len(theirs.global_commits) == 9
    for mine, other in zip(ours.global_commits, theirs.global_commits):
        torch.testing.assert_close(flat(mine.params), flat(other.params), rtol=1e-13, atol=1e-13)
    for began, before in zip(starts(ours)[1:], theirs.global_commits):  # so everybody is where it is
        torch.testing.assert_close(began, flat(before.params).expand(WORKERS, -1), rtol=1e-13, atol=1e-13)
    assert [each.samples for each in ours.updates] == [each.samples for each in theirs.updates]


def test_without_a_share_and_with_an_outer_optimizer_it_is_diloco() -> None:
    outer = {"name": "nesterov", "lr": 0.7, "momentum": 0.5}
    same = {"steps": 12, "base": 4, "model": {"name": "quadratic", "size": 2, "curvature": [1, 3], "dtype": "float64"}}
    ours, theirs = run(share=0.0, outer=outer, **same), run(policy={"name": "diloco", "outer": outer}, **same)
    assert ours.thetas == pytest.approx(theirs.thetas, abs=1e-13)
    assert [commit.time for commit in ours.global_commits] == [commit.time for commit in theirs.global_commits]
    assert [commit.local_steps for commit in ours.global_commits] == [12, 24, 36]


def test_what_travels_are_four_bytes_a_coordinate_and_no_indices() -> None:
    recording = run(steps=5, size=200, share=0.05)
    some, all_ = 2 * (WORKERS - 1) * 4 * 10, 2 * (WORKERS - 1) * 4 * 200  # over the ring's links, in all
    assert [each.bytes for each in recording.transfers] == [some] * 4 + [all_]


@pytest.mark.parametrize(("share", "steps"), [(0.02, 60), (0.1, 10)])
def test_after_n_steps_a_coordinate_has_been_averaged_with_probability_one_minus_q_to_the_n(
    share: float, steps: int
) -> None:
    """1 − (1 − p)^n: .702 and .651 of 2,000 coordinates, with a standard deviation of .0107 at the most."""
    recording = run(steps=steps + 1, size=2000, share=share)
    averaged = (starts(recording)[1:] != ends(recording)[:-1]).any(1).any(0)
    assert float(averaged.double().mean()) == pytest.approx(1 - (1 - share) ** steps, abs=4 * 0.0107)


def test_the_moments_stay_with_the_workers() -> None:
    """AdamW's first two steps on gradients of any size are those of its own moments: as without any averaging."""
    adam = {"name": "adamw", "lr": 0.01, "weight_decay": 0.0}
    train = {**tiny()["train"], "optimizer": adam}
    ours, theirs = run(steps=2, share=1.0, train=train), run(steps=2, share=0.0, train=train)
    assert torch.equal(ends(ours)[0], ends(theirs)[0])
    assert len({tuple(row) for row in (ends(ours)[1] - starts(ours)[1]).tolist()}) == WORKERS  # no two steps alike


class TestConformance(PolicyConformance):
    plugins = ("halos_sparta",)
    sections = (
        {"name": "sparta"},
        {"name": "sparta", "share": 0.4, "delay": 1},
        {"name": "sparta", "share": 0.4, "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.5}},
    )

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        """Steps of a second; an average after each, but where a full one follows."""
        some = all_reduce * section.get("share", 0.005)
        if "outer" in section:
            return rounds * (compute + (compute - 1) * some + all_reduce)
        steps = rounds * compute
        each = max(1.0, some) if section.get("delay") else 1.0 + some
        return 1.0 + (steps - 1) * each + all_reduce


def test_unequal_steps_are_refused() -> None:
    unequal = tiny(
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        steps={"name": "by_speed", "base": 2},
        policy={"name": "sparta"},
    )
    with pytest.raises(UserError, match=r"^policy: workers take 1 to 2 local steps; sparta needs the same for all"):
        record(unequal, PLUGIN)


def down(worker: int, at: float, seconds: float = float("inf")) -> dict[str, Any]:
    return {"name": "crashes", "at": [{"worker": worker, "at_seconds": at, "seconds": seconds}]}


def adds_up(recording: Recording) -> bool:
    ledger = recording.simulation.ledger
    return ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight


def test_a_crash_takes_what_was_not_committed_and_the_others_average_without_it() -> None:
    """Rounds of two steps. Worker 1 is down from 2.5 to 3.2 s: it has lost its third step and the fourth, which the
    others begin at 3 s, and comes back for the fifth, from the mean of the others."""
    recording = run(steps=8, base=2, share=0.5, faults=down(1, 2.5, 0.7))
    assert [(each.worker, each.start_time, each.time) for each in recording.lost] == [(1, 2.0, 2.5), (1, 3.0, 3.0)]
    third, fourth = ([each for each in recording.updates if each.time == time] for time in (3.0, 4.0))
    assert [update.worker for update in third] == [update.worker for update in fourth] == [0, 2]
    before = torch.stack([flat(update.params) for update in third])
    after = torch.stack([flat(update.start) for update in fourth])
    averaged = (before != after).all(0)
    assert int(averaged.sum()) == 5
    torch.testing.assert_close(after[:, averaged], before[:, averaged].mean(0).expand(2, -1))
    (fifth,) = [update for update in recording.updates if (update.worker, update.time) == (1, 5.0)]
    assert recording.global_commits[1].time == 4.0
    assert [share.updates[0].worker for share in recording.global_commits[1].shares] == [0, 2]
    assert torch.equal(flat(fifth.start), flat(recording.global_commits[1].params))
    assert adds_up(recording) and recording.simulation.ledger.committed >= 24


FAULTS: dict[str, Any] = {
    "a crash": down(1, 2.5, 1.5),
    "one for ever": down(2, 3.5),
    "a lost message": {"name": "message_loss", "probability": 0.15, "detection_seconds": 0.5},
    "a region": {"name": "outages", "at": [{"region": 1, "at_seconds": 4.5, "seconds": 6.0}], "samples": "again"},
    "everybody": {"name": "crashes", "at": [{"worker": w, "at_seconds": 3.5, "seconds": 5.0} for w in range(3)]},
}


OPTIONS: dict[str, dict[str, Any]] = {
    "at once": {},
    "late": {"delay": 2},
    "with an outer step": {"outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.5}},
}


# What is late meets all faults; the others have a part of its ways, so those that stop them where it is never stopped.
@pytest.mark.parametrize(
    ("options", "kind"),
    [("late", kind) for kind in FAULTS]
    + [(options, kind) for options in ("at once", "with an outer step") for kind in ("a lost message", "everybody")],
)
def test_it_goes_on_under_faults_and_resumes_exactly(options: str, kind: str) -> None:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [1.0]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1e-6},
        model={"name": "quadratic", "size": 10, "noise": 0.5, "dtype": "float64", "wire_bytes": 100},
        data={"samples": 4096, "validation_samples": 1},
        policy={"name": "sparta", "share": 0.3, **OPTIONS[options]},
        budget={"local_steps": 36},
        faults=FAULTS[kind],
    )
    recording = record(sections, PLUGIN)
    assert adds_up(recording) and recording.simulation.ledger.committed >= 36
    assert sum(recording.simulation.faults.lost().values()) > 0
    assert problem(sections, PLUGIN, cuts=2) is None


def test_a_last_average_that_never_arrives_is_an_error() -> None:
    cluster = {"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0}
    for_ever = {"name": "links", "at": [{"src": 0, "dst": 1, "at_seconds": 3.5}]}
    with pytest.raises(Lost, match="a link is down and stays so"):
        run(steps=6, share=0.5, cluster=cluster, faults=for_ever)
