"""Eager DiLoCo: rounds written out in plain numbers, the exact disagreement of replicas, identities, times."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos import ConfigError
from halos.testing import Recording, record, tiny, two_workers
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_eager_diloco"]
LR, MU = 0.2, 0.5
OUTER = {"name": "nesterov", "lr": LR, "momentum": MU}


def run(delay: int = 1, rounds: int = 5, **changes: Any) -> Recording:
    policy = {"name": "eager_diloco", "outer": OUTER, "outer_delay": delay}
    return record(two_workers(rounds, policy=policy) | changes, PLUGIN)


def by_hand(delay: int, rounds: int) -> list[float]:
    """The mean replica after each round, and after the last step was taken again, from the formulas."""
    shrink = [0.19, 0.1]  # of the two workers: two steps and one of lr 0.1
    theta, velocity = [0.0, 0.0], [0.0, 0.0]
    deltas: list[list[float]] = []
    result = []
    for r in range(rounds):
        deltas.append([shrink[m] * (theta[m] - 1) for m in range(2)])
        old = deltas[r - delay] if r >= delay else [0.0, 0.0]
        before = list(theta), list(velocity)
        mixed = [sum(old) / 2 + (deltas[r][m] - old[m]) / 2 for m in range(2)]
        velocity = [MU * velocity[m] + mixed[m] for m in range(2)]
        theta = [theta[m] - LR * (mixed[m] + MU * velocity[m]) for m in range(2)]
        result.append(sum(theta) / 2)
    missing = deltas[-delay:]
    theta, velocity = before
    for m in range(2):
        full = mixed[m] + sum(sum(each) / 2 - each[m] / 2 for each in missing)
        velocity[m] = MU * velocity[m] + full
        theta[m] -= LR * (full + MU * velocity[m])
    return [*result, sum(theta) / 2]


def test_the_first_two_rounds_in_full() -> None:
    # Round 1: Δ = −.19 and −.1, halved −.095 and −.05; v the same; θ = .2 · 1.5 · (.095, .05) = (.0285, .015).
    first = (0.0285 + 0.015) / 2
    # Round 2: Δ = .19 (.0285 − 1) = −.184585 and .1 (.015 − 1) = −.0985; Δ̃ = −.145 + ½ (−.184585 + .19) = −.1422925
    # and −.145 + ½ (−.0985 + .1) = −.14425; v = −.1897925 and −.16925;
    # θ = .0285 + .2 (.1422925 + .09489625) = .07593775 and .015 + .2 (.14425 + .084625) = .060775.
    second = (0.07593775 + 0.060775) / 2
    assert run(rounds=2).thetas[:2] == pytest.approx([first, second], abs=1e-12)


@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds_and_the_end_of_the_run_equal_the_formulas(delay: int, rounds: int) -> None:
    assert run(delay, rounds).thetas == pytest.approx(by_hand(delay, rounds), abs=1e-12)


def test_updates_are_counted_when_nothing_of_them_is_outstanding() -> None:
    recording = run(delay=2, rounds=5)
    assert [sum(share.steps for share in commit.shares) for commit in recording.global_commits] == [0, 0, 3, 3, 3, 6]
    ledger = recording.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (15, 15, 0)


NOISY = {"name": "quadratic", "size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]}


def test_its_own_term_is_fresh_and_has_no_drift_while_others_come_a_round_late() -> None:
    # Two equal workers, outer SGD with rate 1, two rounds. Each goes from 0 to 0.19; both step at once to 0.19 / 2, and
    # from 0.095 to 0.095 + 0.19 + (0.905 · 0.19 − 0.19) / 2.
    outer = {"name": "eager_diloco", "outer": {"name": "sgd", "lr": 1.0}}
    run = record(tiny(model={"dtype": "float64", "size": 1}, policy=outer))
    own = [commit for commit in run.commits if commit.server.startswith("replica-")]
    assert [(commit.server, len(commit.shares)) for commit in own] == [("replica-0", 1), ("replica-1", 1)] * 2
    assert all((each.hop_staleness, each.hop_drift) == (0, 0.0) for commit in own for each in commit.shares)
    theta = [0.0, 0.095, 0.095 + 0.19 + (0.905 * 0.19 - 0.19) / 2]
    # The mean of a round is complete when the model is θ of the round after it; the last one's at once.
    late = [(each.hop_drift, each.end_to_end[0].drift) for commit in run.global_commits for each in commit.shares]
    drifts = [theta[1] - theta[0]] * 2 + [theta[2] - theta[1]] * 2
    assert late == [pytest.approx((drift, drift), abs=1e-12) for drift in drifts]


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_with_one_worker_it_is_diloco_with_any_outer_optimizer(delay: int, rule: str) -> None:
    same = {"cluster": {"regions": [{"workers": [1.0]}]}, "model": NOISY, "budget": {"local_steps": 40}}
    outer = {"name": rule, "lr": 0.05}
    eager = run(policy={"name": "eager_diloco", "outer": outer, "outer_delay": delay}, **same)
    diloco = run(policy={"name": "diloco", "outer": outer}, **same)
    ours, theirs = eager.global_commits, diloco.global_commits
    assert len(ours) == len(theirs) + 1  # the last step once more: here the same again
    for a, b in zip([*ours[:-2], ours[-1]], theirs):
        torch.testing.assert_close(a.params.flat, b.params.flat, rtol=1e-12, atol=1e-12)


def replicas(recording: Recording, workers: int) -> list[list[torch.Tensor]]:
    """Where each worker's rounds began, round by round: its replica after the round before."""
    rounds: dict[int, list[Any]] = {}
    for update in recording.updates:
        rounds.setdefault(update.lr_step, []).append(update)
    return [
        [each.start.flat for each in sorted(several, key=lambda u: u.worker)] for _, several in sorted(rounds.items())
    ]


@pytest.mark.parametrize("delay", [1, 2])
def test_the_disagreement_of_replicas_is_exactly_the_formula_over_a_thousand_rounds(delay: int) -> None:
    """θ_m − θ̄ = −(lr/M) Σ_{i<k} (d^{r−i} + μ u^{r−i}), d = Δ_m − Δ̄, u = μ u + d."""
    workers = 3
    recording = run(
        delay,
        cluster={"regions": [{"workers": [1.0] * workers}]},
        steps={"name": "fixed", "base": 1},
        model=NOISY,
        data={**tiny()["data"], "samples": 4096},
        budget={"local_steps": workers * 1000},
    )
    starts = replicas(recording, workers)
    deltas: dict[int, list[torch.Tensor]] = {}
    for update in recording.updates:
        assert update.delta.flat is not None
        deltas.setdefault(update.lr_step, []).append((update.worker, update.delta.flat))  # type: ignore[arg-type]
    rounds = [[delta for _, delta in sorted(each, key=lambda pair: pair[0])] for _, each in sorted(deltas.items())]
    assert len(rounds) == len(starts) == 1000
    u = [torch.zeros(3, dtype=torch.float64) for _ in range(workers)]
    terms: list[list[torch.Tensor]] = []
    worst = 0.0
    for r in range(999):
        mean = torch.stack(rounds[r]).mean(0)
        d = [delta - mean for delta in rounds[r]]
        u = [MU * u[m] + d[m] for m in range(workers)]
        terms.append([d[m] + MU * u[m] for m in range(workers)])
        middle = torch.stack(starts[r + 1]).mean(0)
        for m in range(workers):
            formula = -(LR / workers) * sum(each[m] for each in terms[-delay:])
            worst = max(worst, float((starts[r + 1][m] - middle - formula).abs().max()))
    assert worst < 1e-12


def test_the_mean_replica_takes_one_linear_outer_step_on_a_mixture_of_two_means() -> None:
    """On Δ̄^r / M + (1 − 1/M) Δ̄^{r−k}, written out for k = 1 and three workers."""
    workers = 3
    recording = run(
        cluster={"regions": [{"workers": [1.0] * workers}]},
        steps={"name": "fixed", "base": 2},
        model=NOISY,
        budget={"local_steps": workers * 2 * 20},
    )
    means = []
    for first in range(0, len(recording.updates), workers):
        means.append(torch.stack([each.delta.flat for each in recording.updates[first : first + workers]]).mean(0))  # type: ignore[misc]
    theta = v = torch.zeros(3, dtype=torch.float64)
    for r, commit in enumerate(recording.global_commits[:-1]):
        old = means[r - 1] if r else torch.zeros(3, dtype=torch.float64)
        delta = means[r] / workers + (1 - 1 / workers) * old
        v = MU * v + delta
        theta = theta - LR * (delta + MU * v)
        torch.testing.assert_close(commit.params.flat, theta, rtol=1e-12, atol=1e-12)


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = ({"name": "eager_diloco"}, {"name": "eager_diloco", "outer_delay": 2, "outer": {"lr": 0.1}})

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        """However late means are awaited: collectives are serial."""
        return rounds * max(compute, all_reduce) + min(compute, all_reduce)


def test_no_delay_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.outer_delay: 0 is not a positive number of rounds"):
        run(0)
