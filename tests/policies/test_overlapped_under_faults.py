"""Policies whose rounds overlap, under every kind of fault: they go on without what is lost, and count everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from halos_eager_diloco import EagerDiLoCo

from halos import Params, Simulation
from halos.testing import Recording, record, tiny, two_workers
from halos.testing.resuming import problem
from halos.testing.witness import everything, first_difference, timeline
from tests.faulty import HERE, crash
from tests.policies.test_under_faults import KINDS, adds_up

PLUGINS = [
    HERE,
    "halos_codecs",
    "halos_one_step_delay",
    "halos_eager_diloco",
    "halos_overlap_local_sgd",
    "halos_streaming_diloco",
    "halos_dilocox",
]
FAULTS: dict[str, Any] = {
    **KINDS,
    "one for ever": crash(2, 7.3),
    "everybody": {
        "name": "crashes",
        "at": [{"worker": id, "at_seconds": 17.5 + id / 8, "seconds": 9 - id} for id in range(4)],
        "detection_seconds": 0.5,
    },
}
BALANCED = {"name": "streaming_diloco", "fragments": 2, "pattern": "balanced"}
POLICIES: dict[str, Any] = {
    "one_step_delay": {"name": "one_step_delay"},
    "without delay": {"name": "one_step_delay", "outer_delay": 0},
    "by two, corrected": {"name": "one_step_delay", "outer_delay": 2, "merge": "corrected"},
    "eager_diloco": {"name": "eager_diloco"},
    "eager by two": {"name": "eager_diloco", "outer_delay": 2},
    "overlap_local_sgd": {"name": "overlap_local_sgd"},
    "overlap, corrected": {"name": "overlap_local_sgd", "merge": "corrected"},
    "dilocox": {"name": "dilocox", "codec": {"name": "int4", "error_feedback": True}},
    "streaming_diloco": BALANCED,
    "streaming, corrected": {**BALANCED, "merge": "corrected"},
    "streaming, eager": {**BALANCED, "overlap": "outer_step"},
}


def under(policy: Any, kind: str, **changes: Any) -> dict[str, Any]:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.6]}, {"workers": [0.8, 0.9]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1e-7},
        model={"size": 4, "noise": 0.3, "dtype": "float64"},
        data={"samples": 4096, "shards": "by_region", "validation_samples": 1},
        policy=policy,
        faults=FAULTS[kind],
        budget={"local_steps": 200},
    )
    return sections | changes


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_it_trains_what_the_budget_says_and_counts_everything(policy: str, kind: str) -> None:
    run = record(under(POLICIES[policy], kind), PLUGINS)
    ledger = run.simulation.ledger
    assert ledger.trained >= 200  # what is lost is made up for
    assert ledger.committed >= 200 - 16  # but what is dropped of the last two rounds, of two steps each
    assert adds_up(run)
    assert kind in ("links", "outages") or sum(run.simulation.faults.lost().values()) > 0  # which may only delay
    committed = [update.id for commit in run.global_commits for share in commit.shares for update in share.updates]
    assert len(committed) == len({*committed})
    assert sum(update.steps for update in run.updates if update.id in {*committed}) == ledger.committed
    assert first_difference(everything(run), everything(record(under(POLICIES[policy], kind), PLUGINS))) is None
    hollow = record(under(POLICIES[policy], kind, executor={"name": "timing"}), PLUGINS)
    assert first_difference(timeline(run), timeline(hollow)) is None


@pytest.mark.parametrize("kind", ["several", "outages"])
@pytest.mark.parametrize(
    "policy", ["by two, corrected", "eager_diloco", "overlap_local_sgd", "dilocox", "streaming, eager"]
)
def test_a_run_with_faults_that_is_cut_and_resumed_is_the_run_itself(policy: str, kind: str) -> None:
    sections = under(POLICIES[policy], kind, budget={"local_steps": 100})
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.0}
    assert problem(sections | {"train": sections["train"] | {"optimizer": optimizer}}, PLUGINS, cuts=4) is None


def run_of(policy: dict[str, Any], faults: Any, rounds: int = 2) -> Recording:
    """Two workers whose rounds of 2 s leave .81 and .9 of 1 − θ."""
    return record(two_workers(rounds, policy=policy, faults=faults), PLUGINS)


def test_an_average_may_be_over_before_the_one_before_it_is_applied() -> None:
    """All go down together: nobody is in a round's average, and before one is back the next round's is over as well."""
    down = [(0, 10.0, 9.0), (1, 10.0, 0.5), (2, 10.0, 9.0), (3, 2.0, 0.5)]
    at = [{"worker": worker, "at_seconds": moment, "seconds": seconds} for worker, moment, seconds in down]
    run = record(
        under({"name": "one_step_delay", "outer_delay": 2}, "crashes")
        | {"network": {"bandwidth_gbps": 2e-8}, "steps": {"name": "fixed", "base": 1}, "budget": {"local_steps": 40}}
        | {"faults": {"name": "crashes", "at": at, "detection_seconds": 6.0}, "executor": {"name": "timing"}},
        PLUGINS,
    )
    ledger = run.simulation.ledger
    assert ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight >= 40


def test_a_round_of_nobody_is_no_version_of_an_eager_model() -> None:
    """Of two rounds nobody is heard, and the model stays at version 0; what began from it is not younger than it."""
    run = run_of({"name": "eager_diloco", "outer": {"name": "sgd", "lr": 1.0}}, LOSES_ALL_OF_TWO, rounds=4)
    found = [[(share.from_version, share.hop_staleness) for share in commit.shares] for commit in run.global_commits]
    # Commits are made after rounds 0 to 3, and at the end; they hold the means of no round, 0, 1, 2, and 3. Rounds 2
    # and 3 began when the model had not moved yet.
    assert found == [[], [], [], [(0, 0), (0, 0)], [(0, 1), (0, 1)]]


LOSES_ALL_OF_TWO = {"name": "losing", "messages": [0, 1, 2, 3]}  # of the first two rounds
LOSES_THE_SECOND = {"name": "losing", "messages": [1]}  # worker 1's of the first round


def test_an_eager_worker_keeps_its_term_until_it_is_in_a_mean_by_hand() -> None:
    """Outer SGD of rate 1. Round 1 moves by .19/2 and .1/2; the mean that comes after round 2 is .19, of worker 0."""
    run = run_of({"name": "eager_diloco", "outer": {"name": "sgd", "lr": 1.0}}, LOSES_THE_SECOND)
    theta = [0.095, 0.05]
    expected = [0.0725]
    fresh = [0.19 * (1 - theta[0]), 0.1 * (1 - theta[1])]
    theta = [theta[0] + 0.19 + (fresh[0] - 0.19) / 2, theta[1] + 0.19 + fresh[1] / 2]  # its .1 / 2 is not taken back
    expected.append(sum(theta) / 2)
    sent = [fresh[0], 0.1 + fresh[1]]  # worker 1 brings both rounds
    fresh = [0.19 * (1 - theta[0]), 0.1 * (1 - theta[1])]
    theta = [theta[m] + sum(sent) / 2 + (fresh[m] - sent[m]) / 2 for m in range(2)]
    expected.append(sum(theta) / 2)
    assert expected == pytest.approx([0.0725, 0.2817375, 0.4256786875])
    assert run.thetas == pytest.approx(expected, abs=1e-12)
    assert [commit.local_steps for commit in run.global_commits] == [0, 2, 6]


def test_an_average_with_overlap_is_of_who_is_heard_by_hand() -> None:
    """α = ½, no momentum: x is half-way between a worker's end and the anchor; what was not heard is still in x."""
    run = run_of({"name": "overlap_local_sgd", "pullback": 0.5, "momentum": 0.0}, LOSES_THE_SECOND)
    x = [0.19 / 2, 0.1 / 2]
    z = x[0]  # of worker 0 alone
    x = [(x[0] + 0.19 * (1 - x[0]) + z) / 2, (x[1] + 0.1 * (1 - x[1]) + z) / 2]
    assert run.thetas == pytest.approx([z, sum(x) / 2], abs=1e-12)
    assert [commit.local_steps for commit in run.global_commits] == [2, 6]


@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("policy", ["eager_diloco", "eager by two", "streaming, eager"])
def test_with_outer_sgd_all_replicas_end_with_the_same_means(
    policy: str, kind: str, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was lost: fresh terms are taken back or in a mean, and each has had all means, so θ_m = θ⁰ − lr Σ Δ̄."""
    committed: list[list[Params]] = []
    original = EagerDiLoCo._commit

    def commit(self: EagerDiLoCo, sim: Simulation, replicas: list[Params], averages: Any) -> None:
        committed.append(replicas)
        original(self, sim, replicas, averages)

    monkeypatch.setattr(EagerDiLoCo, "_commit", commit)
    run = record(under({**POLICIES[policy], "outer": {"name": "sgd", "lr": rate}}, kind), PLUGINS)
    if committed:
        ends = [replica.flat for replica in committed[-1]]
    else:
        several: Any = run.config.policy
        ends = [torch.cat([mine.theta.flat for mine in each]) for each in several._run.replicas]
    assert len(ends) == 4
    for end in ends:
        torch.testing.assert_close(end, ends[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["crashes", "gone and again", "outages", "message loss", "one for ever"])
def test_streaming_of_one_fragment_without_delay_or_mix_is_diloco(kind: str) -> None:
    """Who is not heard goes on from its own parameters, who crashed from the global ones; workers are equally fast."""
    equal = {"cluster": {"regions": [{"workers": [1.0] * 2}] * 2, "step_time_ms": 1000.0}}
    outer = {"name": "nesterov", "lr": 0.7, "momentum": 0.5}
    whole = {"name": "streaming_diloco", "fragments": 1, "tau": 0, "alpha": 0.0, "outer": outer}
    ours = record(under(whole, kind, **equal), PLUGINS).global_commits
    theirs = record(under({"name": "diloco", "outer": outer}, kind, **equal), PLUGINS).global_commits
    assert abs(len(ours) - len(theirs)) <= 2 and len(ours) > 20  # as rounds are opened one ahead
    for mine, other in zip(ours[:-1], theirs[:-1]):
        assert mine.time == other.time
        torch.testing.assert_close(mine.params.flat, other.params.flat, rtol=1e-12, atol=1e-12)
        assert mine.local_steps == other.local_steps
