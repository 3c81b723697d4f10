"""A merge rule that says where workers begin: heavy ball from θ − lr μ v is Nesterov, whoever trains when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from halos.testing import Recording, record, tiny

AHEAD = str(Path(__file__).parents[1] / "ahead.py")
MODULES = (
    "halos_one_step_delay",
    "halos_overlap_local_sgd",
    "halos_eager_diloco",
    "halos_streaming_diloco",
    "halos_decoupled_diloco",
)
NOISY = {"name": "quadratic", "size": 12, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3] * 4}
UNEQUAL = {"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.4]}], "step_time_ms": 1000.0}
EQUAL = {"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0}
INNER = {"optimizer": {"name": "sgd", "lr": 0.05}}

POLICIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "diloco": ({}, UNEQUAL),
    "async_local_sgd": ({}, UNEQUAL),
    "halos": ({"local": {"name": "sgd", "lr": 0.5}, "local_updates": 3}, UNEQUAL),
    "one_step_delay": ({"outer_delay": 2}, UNEQUAL),
    "one_step_delay, corrected": ({"outer_delay": 2, "merge": "corrected"}, UNEQUAL),
    "overlap_local_sgd, corrected": ({"merge": "corrected"}, UNEQUAL),
    "eager_diloco": ({}, UNEQUAL),
    "streaming_diloco": ({"fragments": 3, "pattern": "balanced", "tau": 1, "alpha": 0.5}, EQUAL),
    "streaming_diloco, corrected": (
        {"fragments": 3, "pattern": "balanced", "tau": 1, "merge": "corrected"},
        EQUAL,
    ),
    "streaming_diloco, eager": ({"fragments": 3, "pattern": "balanced", "overlap": "outer_step"}, EQUAL),
    "decoupled_diloco": ({"fragments": 3, "tau": 2, "averaging": "mean"}, UNEQUAL),
}


def run(name: str, rule: str, **changes: Any) -> Recording:
    """A run in which `rule` is the policy's outer one; over slow links, so that something is always under way."""
    more, cluster = POLICIES[name]
    policy = {"name": name.split(",")[0], "outer": {"name": rule, "lr": 0.4, "momentum": 0.8}, **more}
    sections = tiny(
        cluster=cluster,
        model=NOISY,
        train=INNER,
        network={"bandwidth_gbps": 1e-6},
        steps={"base": 4},
        budget={"local_steps": 120},
        policy=policy,
    )
    return record(sections | changes, [AHEAD, *MODULES])


def begun(recording: Recording) -> list[tuple[Any, ...]]:
    """Who began when, and on which samples."""
    return [(each.worker, each.start_time, each.samples, each.start_version) for each in recording.updates]


@pytest.mark.parametrize("name", POLICIES)
def test_heavy_ball_ahead_is_nesterov(name: str) -> None:
    ahead, nesterov = run(name, "ahead"), run(name, "nesterov")
    assert begun(ahead) == begun(nesterov)
    assert len(ahead.updates) >= 10
    for ours, theirs in zip(ahead.updates, nesterov.updates):
        torch.testing.assert_close(ours.start.flat, theirs.start.flat, rtol=1e-10, atol=1e-12)
    pairs = zip(ahead.global_commits, nesterov.global_commits)
    moved = [ours.params.distance(theirs.params) for ours, theirs in pairs]
    assert max(moved) > 1e-3, "the models are not where workers begin"


def test_local_servers_ask_as_well() -> None:
    """As long as the global model has no part in it."""
    several = []
    for rule in ("ahead", "nesterov"):
        local = {"name": rule, "lr": 0.4, "momentum": 0.8}
        policy = {"name": "halos", "local": local, "local_updates": 1000}
        several.append(run("halos", rule, policy=policy, budget={"local_steps": 10_000, "simulated_hours": 0.02}))
    ahead, nesterov = several
    assert begun(ahead) == begun(nesterov)
    assert len(ahead.updates) >= 10
    for ours, theirs in zip(ahead.updates, nesterov.updates):
        torch.testing.assert_close(ours.start.flat, theirs.start.flat, rtol=1e-10, atol=1e-12)


def test_drift_is_from_where_a_worker_really_began() -> None:
    """One worker, one parameter, by hand: Δ = start − end, and θ is lr μ v away from the start."""
    model = {"name": "quadratic", "size": 1, "optimum": 1.0, "start": 0.0, "dtype": "float64"}
    policy = {"name": "diloco", "outer": {"name": "ahead", "lr": 0.5, "momentum": 0.6}}
    cluster = {"regions": [{"workers": [1.0]}], "step_time_ms": 1000.0}
    inner = {"optimizer": {"name": "sgd", "lr": 0.5}}
    run = record(
        tiny(cluster=cluster, model=model, train=inner, steps={"base": 1}, budget={"local_steps": 3}, policy=policy),
        [AHEAD],
    )
    # Round 1 from 0: gradient −1, Δ = −0.5, v = −0.5, θ = 0.25. Round 2 from 0.25 + 0.15 = 0.4: Δ = −0.3, v = −0.6,
    # θ = 0.55. Round 3 from 0.55 + 0.18 = 0.73: Δ = −0.135, v = −0.495, θ = 0.7975.
    assert [float(each.start.flat) for each in run.updates] == pytest.approx([0.0, 0.4, 0.73], abs=1e-12)
    assert run.thetas == pytest.approx([0.25, 0.55, 0.7975], abs=1e-12)
    shares = [share for commit in run.global_commits for share in commit.shares]
    assert [share.hop_drift for share in shares] == pytest.approx([0.0, 0.15, 0.18], abs=1e-12)
    assert [share.hop_staleness for share in shares] == [0, 0, 0]
