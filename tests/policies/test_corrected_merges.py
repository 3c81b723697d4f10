"""Corrected merges: a mean that arrives late is taken with what the worker did meanwhile, which changes no mean."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from halos.testing import Recording, record, tiny

MODULES = ("halos_one_step_delay", "halos_overlap_local_sgd", "halos_streaming_diloco")
NOISY = {"name": "quadratic", "size": 4, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3, 4]}
ADAMW = {
    "optimizer": {"name": "adamw", "lr": 0.05},
    "schedule": {"name": "warmup_cosine", "warmup": 6, "total": 24},
    "clip": 1.0,
}
EXACT = {"rtol": 1e-12, "atol": 1e-12}

POLICIES: dict[str, dict[str, Any]] = {
    "one_step_delay, k 1": {"name": "one_step_delay", "outer_delay": 1},
    "one_step_delay, k 3": {"name": "one_step_delay", "outer_delay": 3},
    "overlap_local_sgd": {"name": "overlap_local_sgd"},
    "streaming_diloco": {"name": "streaming_diloco", "fragments": 2, "pattern": "balanced", "tau": 2},
    "streaming_diloco, whole": {"name": "streaming_diloco", "fragments": 1, "tau": 3},
}


def run(policy: dict[str, Any], workers: int = 3, outer: dict[str, Any] | None = None, **changes: Any) -> Recording:
    """Six rounds of four steps of 1 s; an all-reduce takes a round and a half, so that much is always under way."""
    section = {"outer": outer or {"name": "sgd", "lr": 1.0}, "merge": "corrected", **policy}
    if policy["name"] == "diloco":
        del section["merge"]
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 128e-9 * 2 * (1 - 1 / max(2, workers)) / 6},
        model=NOISY,
        train=ADAMW,
        steps={"base": 4},
        budget={"local_steps": 24 * workers},
        policy=section,
    )
    return record(sections | changes, MODULES)


def jobs(recording: Recording) -> list[list[Any]]:
    """The first job of every worker, the second, and so on."""
    by_worker: dict[int, list[Any]] = {}
    for update in recording.updates:
        by_worker.setdefault(update.worker, []).append(update)
    return [list(each) for each in zip(*(by_worker[worker] for worker in sorted(by_worker)), strict=True)]


def starts(updates: list[Any]) -> torch.Tensor:
    return torch.stack([update.start.flat for update in updates])


def ends(updates: list[Any]) -> torch.Tensor:
    return torch.stack([update.params.flat for update in updates])


@pytest.mark.parametrize("name", POLICIES)
def test_merging_moves_workers_but_not_their_mean(name: str) -> None:
    several = jobs(run(POLICIES[name]))
    moved = []
    for before, after in pairwise(several):
        torch.testing.assert_close(ends(before).mean(0), starts(after).mean(0), **EXACT)
        moved.append(float((ends(before) - starts(after)).abs().max()))
    assert max(moved) > 1e-3, "workers differ, so that there is something to merge"


@pytest.mark.parametrize("name", POLICIES)
def test_one_worker_trains_as_if_nobody_interrupted_it(name: str) -> None:
    """Against DiLoCo of one worker and outer SGD of rate 1, which is plain training."""
    ours, plain = run(POLICIES[name], workers=1), run({"name": "diloco"}, workers=1)
    assert [update.samples[1] for update in ours.updates][-1] == plain.updates[-1].samples[1] == 24
    at = {update.samples[1]: update.params.flat for update in ours.updates}
    for update in plain.updates:
        torch.testing.assert_close(at[update.samples[1]], update.params.flat, **EXACT)
    torch.testing.assert_close(ours.global_commits[-1].params.flat, plain.updates[-1].params.flat, **EXACT)


@pytest.mark.parametrize("rule", [{"name": "nesterov", "lr": 0.3, "momentum": 0.5}, {"name": "adam", "lr": 0.05}])
@pytest.mark.parametrize(
    "policy", [{"name": "streaming_diloco", "fragments": 1, "tau": 0}, {"name": "one_step_delay", "outer_delay": 0}]
)
def test_without_delay_it_is_diloco_bit_for_bit(policy: dict[str, Any], rule: dict[str, Any]) -> None:
    ours, diloco = run(policy, outer=rule), run({"name": "diloco"}, outer=rule)
    assert [each.as_json() for each in ours.commits] == [each.as_json() for each in diloco.commits]
    for one, other in zip(ours.global_commits, diloco.global_commits, strict=True):
        assert one.params.flat.tolist() == other.params.flat.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["one_step_delay, k 1", "overlap_local_sgd"])
def test_a_round_late_it_is_oldsgd(name: str) -> None:
    """The mean moves by a round's mean difference, and a worker is off it by its own difference of that round."""
    several = jobs(run(POLICIES[name]))
    assert len(several) == 6
    for before, after in pairwise(several):
        deltas = starts(before) - ends(before)
        torch.testing.assert_close(starts(after).mean(0), starts(before).mean(0) - deltas.mean(0), **EXACT)
        torch.testing.assert_close(starts(after) - starts(after).mean(0), deltas.mean(0) - deltas, **EXACT)


@pytest.mark.parametrize("rule", [{"name": "sgd", "lr": 1.0}, {"name": "nesterov", "lr": 0.3, "momentum": 0.5}])
def test_overlap_and_one_step_delay_are_the_same_then(rule: dict[str, Any]) -> None:
    overlap = run({"name": "overlap_local_sgd"}, outer=rule)
    delayed = run({"name": "one_step_delay", "outer_delay": 1}, outer=rule)
    assert [each.as_json() for each in overlap.updates] == [each.as_json() for each in delayed.updates]
    assert [each.as_json() for each in overlap.commits] == [each.as_json() for each in delayed.commits]


@pytest.mark.parametrize("name", POLICIES)
def test_on_a_linear_loss_momentum_is_all_that_moves_the_mean(name: str) -> None:
    """Workers' mean and global model end at the same place: nothing that was trained is lost or counted twice."""
    linear = {"name": "quadratic", "size": 4, "curvature": 0.0, "noise": 1.0, "dtype": "float64"}
    recording = run(POLICIES[name], model=linear, train={"optimizer": {"name": "sgd", "lr": 0.1}})
    trained = [update.start.flat - update.params.flat for update in recording.updates]
    ended = recording.updates[0].start.flat - torch.stack(trained).sum(0) / 3
    torch.testing.assert_close(recording.global_commits[-1].params.flat, ended, **EXACT)
