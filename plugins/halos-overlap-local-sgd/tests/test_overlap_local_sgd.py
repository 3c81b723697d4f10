"""Overlap Local-SGD: rounds written out in plain numbers, identities, closed forms of the time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos import ConfigError
from halos.testing import Recording, record, two_workers
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_overlap_local_sgd"]
NOISY = {"name": "quadratic", "size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]}


def run(pullback: float = 0.6, momentum: float = 0.7, rounds: int = 5, **changes: Any) -> Recording:
    policy = {"name": "overlap_local_sgd", "pullback": pullback, "momentum": momentum}
    return record(two_workers(rounds, policy=policy) | changes, PLUGIN)


def test_the_first_two_rounds_in_full() -> None:
    # Sync 1: x = .19 and .1, pulled back to z = 0 by .6: .076 and .04 = v; the next anchor is their mean, .058.
    # Round 2 from x: 1 − .81 · .924 = .25156 and 1 − .9 · .96 = .136. Sync 2, z = .058: x = .4 · .25156 + .6 · .058
    # = .135424 and .4 · .136 + .0348 = .0892; v = .7 · .076 + .077424 = .130624 and .7 · .04 + .0312 = .0592;
    # the anchor: .058 + (.130624 + .0592) / 2.
    assert run(rounds=2).thetas == pytest.approx([0.058, 0.058 + 0.094912], abs=1e-12)


def test_five_rounds_equal_the_equations() -> None:
    alpha, beta, shrink = 0.6, 0.7, [0.81, 0.9]
    x, v, z, expected = [0.0, 0.0], [0.0, 0.0], 0.0, []
    for _ in range(5):
        for m in range(2):
            x[m] = (1 - alpha) * (1 - shrink[m] * (1 - x[m])) + alpha * z
            v[m] = beta * v[m] + x[m] - z
        z = z + sum(v) / 2
        expected.append(z)
    assert run().thetas == pytest.approx(expected, abs=1e-12)


def test_without_momentum_the_anchor_moves_by_the_mean_difference() -> None:
    """z_{k+1} = z_k − (1−α) Δ̄_k, each Δ from its worker's own start."""
    recording = run(pullback=0.3, momentum=0.0)
    rounds: dict[int, list[float]] = {0: [], 1: []}
    for update in recording.updates:
        rounds[update.worker].append(float(update.delta.flat[0]))  # type: ignore[index]
    z, expected = 0.0, []
    for fast, slow in zip(rounds[0], rounds[1], strict=True):
        z -= 0.7 * (fast + slow) / 2
        expected.append(z)
    assert recording.thetas == pytest.approx(expected, abs=1e-12)


def test_with_one_worker_and_no_momentum_it_is_diloco_with_outer_sgd() -> None:
    same = {"cluster": {"regions": [{"workers": [1.0]}]}, "model": NOISY, "budget": {"local_steps": 40}}
    overlap = run(pullback=0.25, momentum=0.0, **same)
    diloco = run(policy={"name": "diloco", "outer": {"name": "sgd", "lr": 0.75}}, **same)
    for ours, theirs in zip(overlap.global_commits, diloco.global_commits, strict=True):
        torch.testing.assert_close(ours.params.flat, theirs.params.flat, rtol=1e-12, atol=1e-12)


def test_without_pull_back_and_momentum_workers_are_independent_and_the_anchor_is_their_mean() -> None:
    recording = run(pullback=0.0, momentum=0.0, rounds=4)
    # Each goes its own way: 1 − .81^r and 1 − .9^r.
    assert recording.thetas == pytest.approx([1 - (0.81**r + 0.9**r) / 2 for r in range(1, 5)], abs=1e-12)


def test_fully_pulled_back_it_never_leaves_the_initial_model() -> None:
    assert run(pullback=1.0).thetas == [0.0] * 5


def test_on_a_linear_loss_the_anchor_moves_at_the_known_share_of_the_workers_speed() -> None:
    """(1−α) / (1−αβ) of plain local SGD's, asymptotically: a quadratic too flat to bend is linear."""
    alpha, beta, rounds = 0.5, 0.6, 200
    flat = {"name": "quadratic", "size": 1, "curvature": 1e-9, "optimum": 1e9, "dtype": "float64"}
    recording = run(alpha, beta, rounds, model=flat)
    speed = recording.thetas[-1] - recording.thetas[-2]
    plain = 0.1 * 1.5  # lr · gradient 1 · mean steps
    assert speed == pytest.approx(plain * (1 - alpha) / (1 - alpha * beta), rel=1e-6)


def test_the_mean_of_the_workers_is_evaluated_beside_the_anchor() -> None:
    recording = run(evaluate={"every_local_steps": 3})
    assert [each.of for each in recording.evaluations] == ["global"] + ["global", "workers"] * 5


def begun(recording: Recording, worker: int) -> list[float]:
    """Where a worker's jobs began."""
    return [float(each.start.flat) for each in recording.updates if each.worker == worker]  # type: ignore[arg-type]


def test_three_rounds_of_the_corrected_merge_by_hand() -> None:
    """Outer Nesterov of rate 1 and momentum .5. Round 1 from 0 and 0: Δ = −.19, −.1, mean −.145.

    Round 2 from .19 and .1: Δ = −.1539, −.09, mean −.12195. Then v = −.145 and z = .145 + .0725 = .2175, so round 3
    begins from .2175 + .1539 and .2175 + .09, and v = −.0725 − .12195, z = .2175 + .12195 + .097225 = .436675.
    Round 3: Δ = −.19 · .6286, −.1 · .6925; v = −.0972250 − .0943420, z = .436675 + .094342 + .0957835.
    """
    policy = {"merge": "corrected", "outer": {"name": "nesterov", "lr": 1.0, "momentum": 0.5}}
    recording = run(rounds=3, policy={"name": "overlap_local_sgd", **policy})
    assert begun(recording, 0) == pytest.approx([0.0, 0.19, 0.3714], abs=1e-12)
    assert begun(recording, 1) == pytest.approx([0.0, 0.1, 0.3075], abs=1e-12)
    assert recording.thetas == pytest.approx([0.2175, 0.436675, 0.6268005], abs=1e-12)
    hops = [share for commit in recording.global_commits for share in commit.shares]
    # From where each began to z before its mean: 0, then .2175, then .436675.
    expected = [0, 0, abs(0.2175 - 0.19), 0.1175, 0.436675 - 0.3714, 0.436675 - 0.3075]
    assert sorted(each.hop_drift for each in hops) == pytest.approx(sorted(expected), abs=1e-12)
    assert [each.hop_staleness for each in hops] == [0, 0, 1, 1, 1, 1]


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = (
        {"name": "overlap_local_sgd"},
        {"name": "overlap_local_sgd", "merge": "corrected", "outer": {"name": "nesterov", "lr": 0.3, "momentum": 0.5}},
    )

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        return rounds * max(compute, all_reduce) + min(compute, all_reduce)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"pullback": 1.1}, "pullback"), ({"pullback": -0.1}, "pullback"), ({"momentum": 1.0}, "momentum")],
)
def test_bad_hyper_parameters_are_refused(options: dict[str, float], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"policy\.{key}: .* is not in \[0, 1"):
        run(**options)
