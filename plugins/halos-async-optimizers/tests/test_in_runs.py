"""In runs: what rules are given, where workers begin, what is refused, and what comes of it after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from halos import start_of
from halos.testing import Recording, record, tiny
from halos.testing.resuming import problem
from halos.testing.witness import first_difference, timeline

HERE = Path(__file__).parent
PLUGINS = ["halos_async_optimizers", str(HERE / "spy.py")]
NOISY = {"name": "quadratic", "size": 12, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3] * 4}
ALONE = {"name": "quadratic", "size": 1, "optimum": 1.0, "start": 0.0, "dtype": "float64"}
UNEQUAL = {"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.4, 0.9]}], "step_time_ms": 1000.0}

RULES: dict[str, dict[str, Any]] = {
    "mla": {"name": "mla", "lr": 0.3},
    "mla ahead": {"name": "mla", "lr": 0.3, "ahead": True},
    "heloco": {"name": "heloco", "lr": 0.3, "rho": 0.5},
    "heloco, whole": {"name": "heloco", "lr": 0.3, "per": "model"},
    "poly": {"name": "poly", "outer": {"name": "nesterov", "lr": 0.1}},
    "poly_thres": {"name": "poly_thres", "threshold": 1, "outer": {"name": "mla", "lr": 0.3, "ahead": True}},
    "cgad": {"name": "cgad", "cutoff": 5, "outer": {"name": "adam", "lr": 0.05}},
    "gap_aware": {"name": "gap_aware", "outer": {"name": "nesterov", "lr": 0.1}},
    "compensated": {"name": "compensated", "outer": {"name": "sgd", "lr": 0.5}},
    "compensated, adaptive": {
        "name": "compensated",
        "adaptive": True,
        "strength": 0.1,
        "outer": {"name": "nesterov", "lr": 0.1},
    },
    "nested": {
        "name": "poly_thres",
        "threshold": 2,
        "outer": {"name": "gap_aware", "outer": {"name": "heloco", "lr": 0.3}},
    },
}
POLICIES: dict[str, dict[str, Any]] = {
    "async": {"name": "async_local_sgd"},
    "async, grace": {"name": "async_local_sgd", "grace_seconds": 3.0},
    "halos": {"name": "halos", "local_updates": 3},
    "buffered": {"name": "buffered", "buffer": 3, "power": 0.5},
    "dana": {"name": "dana"},
}


def policy(name: str, rule: dict[str, Any]) -> dict[str, Any]:
    """The policy with that rule everywhere, on local servers too."""
    local = {"local": rule} if name == "halos" else {}
    return {**POLICIES[name], "outer": rule, **local}


def sections(policy: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return tiny(
        cluster=UNEQUAL,
        model=NOISY,
        network={"bandwidth_gbps": 1e-6},
        train={"optimizer": {"name": "sgd", "lr": 0.05}},
        data={"samples": 4096},
        steps={"base": 4},
        budget={"local_steps": 160},
        policy=policy,
    ) | changes  # fmt: skip


def run(policy: dict[str, Any], **changes: Any) -> Recording:
    return record(sections(policy, **changes), PLUGINS)


# Every rule in the policy that asks of one everything there is to ask, every policy with a rule that displaces starts
# and one that refuses: a rule does not know who steps it, nor a policy which rule it steps.
FEW = "mla ahead", "nested"
PAIRS = [(name, rule) for name in POLICIES for rule in RULES if name == "async" or rule in FEW]


@pytest.mark.parametrize(("name", "rule"), PAIRS)
def test_it_takes_the_time_it_takes_without_training_and_can_be_cut(name: str, rule: str) -> None:
    section = policy(name, RULES[rule])
    trained, timed = run(section), run(section, executor={"name": "timing"})
    assert first_difference(timeline(trained), timeline(timed)) is None
    ledger = trained.simulation.ledger
    assert ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight
    assert problem(sections(section, budget={"local_steps": 80}), PLUGINS, cuts=1) is None


@pytest.mark.parametrize("name", ["async", "async, grace", "halos", "dana"])
def test_rules_are_given_the_age_and_the_start_that_are_recorded(name: str) -> None:
    """Of displaced starts, too."""
    inside = {"name": "spy", "outer": RULES["mla ahead"]}
    recording = run(policy(name, inside))
    for field in ("outer", "local") if name == "halos" else ("outer",):
        commits = [commit for commit in recording.commits if (commit.server == "global") == (field == "outer")]
        shares = [share for commit in commits for share in commit.shares]
        recorded = [(share.target.serial, share.base.serial, share.hop_staleness) for share in shares]
        assert getattr(recording.config.policy, field).seen == recorded
        assert len(recorded) > 8 and max(age for *_, age in recorded) >= 1


def test_drift_is_from_the_displaced_start() -> None:
    """One worker, one parameter, lr ½, γ ½, ahead; a job goes half of the way to 1, so Δ = −½ (1 − start)."""
    one = {"regions": [{"workers": [1.0]}], "step_time_ms": 1000.0}
    recording = run(
        {"name": "async_local_sgd", "outer": {"name": "mla", "lr": 0.5, "momentum": 0.5, "ahead": True}},
        cluster=one,
        model=ALONE,
        train=tiny()["train"] | {"optimizer": {"name": "sgd", "lr": 0.5}},
        steps={"name": "fixed", "base": 1},
        budget={"local_steps": 3},
    )
    # From 0: Δ = −.5, m = −.25, θ = .3125, next from θ + .0625. Δ = −.3125, m = −.28125, θ = .5390625, next .0703125
    # ahead of that. Δ = −.1953125, m = −.23828125, θ = .6962890625.
    assert [float(each.start.flat) for each in recording.updates] == [0.0, 0.375, 0.609375]
    assert recording.thetas == [0.3125, 0.5390625, 0.6962890625]
    shares = [share for commit in recording.global_commits for share in commit.shares]
    assert [share.hop_drift for share in shares] == pytest.approx([0.0, 0.0625, 0.0703125], abs=1e-15)
    assert [share.hop_staleness for share in shares] == [0, 0, 0]


def test_the_run_says_where_workers_of_mla_begin(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="halos")
    for ahead, words in ((False, "θ (ahead: false)"), (True, "θ − lr γ m (ahead: true)")):
        caplog.clear()
        inside = {"name": "poly", "outer": {"name": "mla", "ahead": ahead}}
        run({"name": "async_local_sgd", "outer": inside}, budget={"local_steps": 4})
        assert [each.getMessage() for each in caplog.records] == [f"mla: workers begin at {words}"]


# Merges are told once, and as they were


def test_of_a_rule_inside_another_the_outer_one_tells_once() -> None:
    recording = run(policy("async", RULES["nested"]), steps={"name": "hearing", "base": 4})
    heard = recording.config.steps.heard
    assert len(heard) == len(recording.global_commits) > 20
    updates = {update.id: update for update in recording.updates}
    outer = recording.config.policy.outer
    for merge, commit in zip(heard, recording.global_commits):
        assert merge.rule is outer
        update = updates[commit.shares[0].updates[0].id]
        assert torch.equal(merge.delta.flat, update.delta.flat), "what came, not what was made of it"
        assert merge.after is commit.params
        assert torch.equal(merge.again(merge.delta).flat, commit.params.flat)
        assert merge.momentum is merge.state.inner, "HeLoCo's, inside GapAware"


# What is refused


def test_what_is_refused_changes_nothing() -> None:
    """Two workers, one half as fast. It is a version late whenever it arrives: as if the other one were alone."""
    rule = {"name": "poly_thres", "threshold": 0, "outer": {"name": "nesterov", "lr": 0.2, "momentum": 0.5}}
    recordings = [
        run(
            {"name": "async_local_sgd", "outer": rule},
            cluster={"regions": [{"workers": workers}], "step_time_ms": 1000.0},
            model=ALONE,
            network={"name": "matrix", "bandwidth_gbps": float("inf")},
            steps={"name": "fixed", "base": 2},
            budget={"local_steps": 8},
        )
        for workers in ([1.0, 0.5], [1.0])
    ]
    both, alone = recordings
    assert [commit.time for commit in both.commits] == [2.0, 4.0, 6.0, 8.0]
    assert both.thetas == alone.thetas
    assert [commit.version for commit in both.commits] == [1, 2, 3, 4]
    ledger = both.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight) == (12, 8, 4, 0)


@pytest.mark.parametrize("field", ["outer", "local"])
def test_servers_of_halos_refuse(field: str) -> None:
    """At the global server a whole exchange is refused, and the local one takes over its model all the same."""
    rules = {"outer": {"name": "sgd", "lr": 0.5}, "local": {"name": "sgd", "lr": 0.5}}
    rules[field] = {"name": "poly_thres", "threshold": 0, "outer": rules[field]}
    recording = run({"name": "halos", "local_updates": 3, **rules})
    ledger, commits = recording.simulation.ledger, recording.commits
    assert ledger.dropped > 0 and ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight
    refusing = [commit for commit in commits if (commit.server == "global") == (field == "outer")]
    assert {share.hop_staleness for commit in refusing for share in commit.shares} == {0}
    exchanges = [commit for commit in commits if commit.server != "global" and commit.kind == "merge"]
    if field == "outer":
        assert len(exchanges) > len(recording.global_commits)
    committed = {u.id for c in recording.global_commits for share in c.shares for u in share.updates}
    at_local = [update.id for c in commits if c.server != "global" for share in c.shares for update in share.updates]
    assert committed < set(at_local) and len(at_local) == len(set(at_local))


# Buffered


def buffered(weights: Any = "uniform", **options: Any) -> Recording:
    """Two workers, one half as fast: jobs of two steps come back at 2, 4, 4, 6, 8, 8 s. A job leaves .81 of 1 − θ."""
    return run(
        {"name": "buffered", "buffer": 2, "outer": {"name": "sgd", "lr": 1.0}, **options},
        cluster={"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0},
        model=ALONE,
        network={"name": "matrix", "bandwidth_gbps": float("inf")},
        train=tiny()["train"],
        steps={"name": "fixed", "base": 2},
        budget={"local_steps": 10},
        weights=weights,
    )


def test_buffered_by_hand() -> None:
    # At 2 s the fast one's −.19, at 4 s the slow one's −.19: θ = .19. The fast one's, at 4 s, is of 0, and again −.19;
    # at 6 s comes −.19 · .81 = −.1539 of .19: θ = .19 + (.19 + .1539)/2. At 8 s the slow one's −.1539, of .19, alone:
    # with it 10 local steps are there.
    recording = buffered()
    assert [commit.time for commit in recording.commits] == [4.0, 6.0, 8.0]
    assert recording.thetas == pytest.approx([0.19, 0.36195, 0.51585], abs=1e-14)
    merged = [[(each.updates[0].worker, each.hop_staleness) for each in commit.shares] for commit in recording.commits]
    assert merged == [[(0, 0), (1, 0)], [(0, 1), (0, 0)], [(1, 1)]]
    drift = [share.hop_drift for commit in recording.commits for share in commit.shares]
    assert drift == pytest.approx([0, 0, 0.19, 0, 0.36195 - 0.19], abs=1e-14)
    ledger = recording.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (10, 10, 0)


def test_buffered_with_fedbuffs_factor() -> None:
    # Ages 1 and 0: (.19/√2 + .1539)/2; then one of age 1: .1539/√2.
    second = 0.19 + (0.19 / 2**0.5 + 0.1539) / 2
    assert buffered(power=0.5).thetas == pytest.approx([0.19, second, second + 0.1539 / 2**0.5], abs=1e-14)


def test_what_is_buffered_is_weighed_against_what_it_is_averaged_with() -> None:
    """One counts thrice as much as the other. First both bring −.19, then one is there twice, then the other alone."""
    weighed = buffered(weights={"name": "by_worker", "workers": [1.0, 3.0]})
    assert weighed.thetas == pytest.approx([0.19, 0.36195, 0.51585], abs=1e-14)


def test_buffered_ends_with_what_is_trained() -> None:
    """A budget of trained steps: what is held when it is spent is merged."""
    outer = {"name": "nesterov", "lr": 0.3, "momentum": 0.5}
    recording = run({"name": "buffered", "buffer": 4, "outer": outer}, budget={"trained_steps": 40})
    assert [len(commit.shares) for commit in recording.commits] == [4, 4, 2]
    assert recording.simulation.ledger.in_flight == 0


OUTER = [
    {"name": "sgd", "lr": 0.8},
    {"name": "nesterov", "lr": 0.3, "momentum": 0.8},
    {"name": "adam", "lr": 0.05},
    {"name": "heloco", "lr": 0.3, "per": "model"},
]


@pytest.mark.parametrize("outer", OUTER, ids=lambda outer: outer["name"])
def test_buffered_of_all_workers_on_a_common_base_is_diloco(outer: dict[str, Any]) -> None:
    """Its first step, where nobody is twice as fast; all steps on a linear loss, where the base plays no part."""
    free = {"network": {"name": "matrix", "bandwidth_gbps": float("inf")}}
    near = {"cluster": {"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.6, 0.9]}]}, "budget": {"local_steps": 16}}
    first = [run({"name": name, "outer": outer, **more}, **free, **near) for name, more in BOTH]
    assert all(len(each.global_commits) == 1 for each in first)
    torch.testing.assert_close(*[each.simulation.params.flat for each in first], rtol=1e-14, atol=1e-14)
    linear = NOISY | {"curvature": 0.0, "noise": 1.0}
    equal = {"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0, 1.0]}], "step_time_ms": 1000.0}
    both = [run({"name": name, "outer": outer, **more}, **free, model=linear, cluster=equal) for name, more in BOTH]
    assert [u.samples for u in both[0].updates] == [u.samples for u in both[1].updates]
    for ours, theirs in zip(both[0].global_commits, both[1].global_commits, strict=True):
        torch.testing.assert_close(ours.params.flat, theirs.params.flat, rtol=1e-12, atol=1e-12)


BOTH: list[tuple[str, dict[str, Any]]] = [("buffered", {"buffer": 4}), ("diloco", {})]


def test_one_by_one_on_a_common_base_sgd_is_diloco() -> None:
    """Windows that hold all workers: SGD(lr/M) four times from one base is SGD(lr) of their mean."""
    equal = {"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0, 1.0]}], "step_time_ms": 1000.0}
    free = {"network": {"name": "matrix", "bandwidth_gbps": float("inf")}, "cluster": equal}
    window = {"name": "async_local_sgd", "grace_seconds": 1.0, "outer": {"name": "sgd", "lr": 0.2}}
    one_by_one, diloco = run(window, **free), run({"name": "diloco", "outer": {"name": "sgd", "lr": 0.8}}, **free)
    assert len(one_by_one.commits) == 4 * len(diloco.commits) == 40
    for ours, theirs in zip(one_by_one.commits[3::4], diloco.commits, strict=True):
        torch.testing.assert_close(ours.params.flat, theirs.params.flat, rtol=1e-12, atol=1e-12)


# DANA


def test_dana_is_a_momentum_per_worker_seen_ahead() -> None:
    """As remembered: v_i ← γ v_i + Δ, θ ← θ − η v_i, workers begin at θ − η γ Σ v_j, which is committed."""
    eta, gamma = 0.1, 0.8
    recording = run({"name": "dana", "outer": {"name": "nesterov", "lr": eta, "momentum": gamma}})
    theta, velocity = np.zeros(12), {worker: np.zeros(12) for worker in range(4)}
    updates = {update.id: update for update in recording.updates}
    begun = [theta]  # by version
    for commit in recording.global_commits:
        update = updates[commit.shares[0].updates[0].id]
        assert update.start.flat is not None and commit.params.flat is not None
        np.testing.assert_allclose(update.start.flat.numpy(), begun[update.global_version], rtol=0, atol=1e-12)
        delta = update.start.flat.numpy() - update.params.flat.numpy()  # type: ignore[union-attr]
        velocity[update.worker] = gamma * velocity[update.worker] + delta
        theta = theta - eta * velocity[update.worker]
        begun.append(theta - eta * gamma * sum(velocity.values()))
        np.testing.assert_allclose(commit.params.flat.numpy(), begun[-1], rtol=0, atol=1e-12)
    assert len(begun) > 30 and float(np.abs(begun[-1]).max()) > 0.1


def test_dana_with_one_worker_is_nesterov() -> None:
    one = {"regions": [{"workers": [1.0]}], "step_time_ms": 1000.0}
    outer = {"name": "nesterov", "lr": 0.2, "momentum": 0.8}
    both = [run({"name": name, "outer": outer}, cluster=one) for name in ("dana", "async_local_sgd")]
    assert both[0].thetas == both[1].thetas


# Other policies: fragments, rounds


@pytest.mark.parametrize("rule", ["heloco", "mla ahead", "nested"])
def test_fragments_and_rounds_take_them(rule: str) -> None:
    for name, more in (("diloco", {}), ("streaming_diloco", {"fragments": 3, "pattern": "balanced", "tau": 1})):
        recording = record(sections({"name": name, "outer": RULES[rule], **more}), [*PLUGINS, "halos_streaming_diloco"])
        theta = recording.simulation.params
        assert theta.flat is not None
        assert float((theta.flat - 1).norm()) < 0.6 * 12**0.5, "a good part of the way"


def test_where_a_rule_begins_is_asked_with_the_rule_around_it() -> None:
    recording = run(policy("async", RULES["poly_thres"]))
    rule = recording.config.policy.outer
    theta = recording.simulation.params
    _, state = rule.step(theta, theta, rule.init(theta))
    assert torch.equal(start_of(rule, theta, state).flat, start_of(rule.outer, theta, state).flat)  # type: ignore[arg-type]
    assert not torch.equal(start_of(rule, theta, state).flat, theta.flat)  # type: ignore[arg-type]
