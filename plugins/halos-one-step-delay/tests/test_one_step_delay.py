"""One-step-delay: rounds written out in plain numbers, closed forms of the time, identities."""

from __future__ import annotations

from typing import Any

import pytest

from halos import ConfigError
from halos.testing import Recording, record, tiny, two_workers
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_one_step_delay"]
LR, MU = 0.2, 0.5


def run(delay: int = 1, rounds: int = 5, **changes: Any) -> Recording:
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    policy = {"name": "one_step_delay", "outer": outer, "outer_delay": delay}
    return record(two_workers(rounds, policy=policy) | changes, PLUGIN)


def test_five_rounds_and_the_last_mean_by_hand() -> None:
    """Δ̄^r = (½ (1 − .81) + ½ (1 − .9)) (θ^{r−1} − 1) = .145 (θ^{r−1} − 1), from the model before last."""
    model, before = [0.0, 0.0], 0.0  # θ^0 and θ^1: no outer step in round 1
    velocity, expected = 0.0, []
    for r in range(5):
        delta = 0.145 * (model[r] - 1)
        velocity = MU * velocity + delta
        before = model[-1] - LR * (delta + MU * velocity)
        model.append(before)
        expected.append(before)
    # The first of them in full: Δ̄ = −.145, v = −.145, θ = .2 (.145 + .0725) = .0435.
    assert expected[0] == pytest.approx(0.0435)
    # The second: the same Δ̄ (round 2 began at 0, too), v = −.2175, θ = .0435 + .2 (.145 + .10875) = .09425.
    assert expected[1] == pytest.approx(0.09425)
    assert run().thetas == pytest.approx(expected, abs=1e-12)


def test_every_trained_step_is_in_the_final_model() -> None:
    ledger = run().simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (15, 15, 0)


def test_contributions_drift_from_the_model_they_began_at_to_the_one_they_are_applied_to() -> None:
    recording = run()
    model = [0.0, 0.0, *recording.thetas]
    for r, commit in enumerate(recording.global_commits):
        for share in commit.shares:
            assert share.hop_drift == pytest.approx(abs(model[r + 1] - model[r]))
        assert commit.shares[0].hop_staleness == min(r, 1)


def begun(recording: Recording, worker: int) -> list[float]:
    """Where a worker's jobs began."""
    return [float(each.start.flat) for each in recording.updates if each.worker == worker]  # type: ignore[arg-type]


def test_three_rounds_of_the_corrected_merge_by_hand() -> None:
    """Outer SGD of rate 1. Round 1 from 0 and 0: Δ = −.19, −.1. Round 2, θ still 0, from .19 and .1: Δ = −.1539, −.09.

    θ¹ = .145, so round 3 begins from .145 + .1539 and .145 + .09: Δ = −.19 · .7011, −.1 · .765.
    """
    policy = {"name": "one_step_delay", "outer": {"name": "sgd", "lr": 1.0}, "merge": "corrected"}
    recording = run(rounds=3, policy=policy)
    assert begun(recording, 0) == pytest.approx([0.0, 0.19, 0.2989], abs=1e-12)
    assert begun(recording, 1) == pytest.approx([0.0, 0.1, 0.235], abs=1e-12)
    assert recording.thetas == pytest.approx([0.145, 0.26695, 0.26695 + (0.133209 + 0.0765) / 2], abs=1e-12)


def test_two_rounds_late_a_worker_keeps_two_of_its_own() -> None:
    """k = 2: round 4 begins from θ¹ = .145 and what a worker did in rounds 2 and 3; before, nothing interrupts it.

    .81 and .9 are left of 1 − θ after each of three rounds; the last two brought .81 − .531441 and .9 − .729.
    """
    policy = {"name": "one_step_delay", "outer": {"name": "sgd", "lr": 1.0}, "merge": "corrected", "outer_delay": 2}
    recording = run(rounds=4, policy=policy)
    assert begun(recording, 0)[-1] == pytest.approx(0.145 + 0.19 * 0.81 * 1.81, abs=1e-12)
    assert begun(recording, 1)[-1] == pytest.approx(0.145 + 0.1 * 0.9 * 1.9, abs=1e-12)


def test_what_a_corrected_merge_begins_from_is_told_truly() -> None:
    """Hops are from where a worker began to θ as it is then; staleness is of the θ in it."""
    policy = {"name": "one_step_delay", "outer": {"name": "sgd", "lr": 1.0}, "merge": "corrected"}
    commits = run(rounds=3, policy=policy).global_commits
    drifts = [sorted(share.hop_drift for share in commit.shares) for commit in commits]
    # Round 2 began at .19 and .1, and is applied to .145; round 3 at .2989 and .235, and is applied to .26695.
    expected = [[0.0, 0.0], [0.045, 0.045], [0.03195, 0.03195]]
    assert [each for pair in drifts for each in pair] == pytest.approx([each for pair in expected for each in pair])
    assert [[share.hop_staleness for share in commit.shares] for commit in commits] == [[0, 0], [1, 1], [1, 1]]


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = tuple(
        {"name": "one_step_delay", "outer_delay": k, "outer": {"momentum": 0.5}, "merge": merge}
        for k, merge in ((0, "replace"), (1, "replace"), (2, "replace"), (1, "corrected"), (2, "corrected"))
    )

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        """One after the other without delay; overlapped with any, however late: the collectives are serial."""
        if section["outer_delay"] == 0:
            return rounds * (compute + all_reduce)
        return rounds * max(compute, all_reduce) + min(compute, all_reduce)


def test_without_delay_it_is_diloco() -> None:
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    diloco = run(policy={"name": "diloco", "outer": outer})
    assert run(0).thetas == diloco.thetas


@pytest.mark.parametrize("outer", [{"name": "nesterov", "lr": LR, "momentum": MU}, {"name": "adam", "lr": 0.05}])
def test_without_delay_it_is_diloco_bit_for_bit_whoever_ends_first(outer: dict[str, Any]) -> None:
    """Workers that draw from one order of the data, in which they go on in their own, as in DiLoCo."""
    noisy = tiny(
        cluster={"regions": [{"workers": [1.0, 0.6, 0.8]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1e-7},
        model={"size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]},
        train={"optimizer": {"name": "adamw", "lr": 0.05}, "clip": 1.0},
        budget={"local_steps": 48},
    )
    del noisy["policy"]
    ours = record(noisy | {"policy": {"name": "one_step_delay", "outer": outer, "outer_delay": 0}}, PLUGIN)
    diloco = record(noisy | {"policy": {"name": "diloco", "outer": outer}})
    assert len(diloco.global_commits) == 8
    for mine, theirs in zip(ours.global_commits, diloco.global_commits, strict=True):
        assert mine.params.flat.tolist() == theirs.params.flat.tolist()  # type: ignore[union-attr]
    assert sorted(each.as_json() for each in ours.updates) == sorted(each.as_json() for each in diloco.updates)
    assert ours.transfers == diloco.transfers


def test_on_a_linear_loss_it_is_diloco_a_round_later() -> None:
    linear = {"name": "quadratic", "size": 3, "curvature": 0.0, "noise": 1.0, "dtype": "float64"}
    same = {"cluster": {"regions": [{"workers": [1.0, 1.0]}]}, "steps": {"name": "fixed", "base": 2}, "model": linear}
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    delayed = run(**same, budget={"local_steps": 40})
    diloco = run(**same, budget={"local_steps": 40}, policy={"name": "diloco", "outer": outer})
    # delayed^{r+1} = DiLoCo^r: the r-th mean makes the same model, only later.
    assert [each.samples for each in delayed.updates] == [each.samples for each in diloco.updates]
    for ours, theirs in zip(delayed.global_commits, diloco.global_commits, strict=True):
        assert ours.params.flat.tolist() == pytest.approx(theirs.params.flat.tolist(), abs=1e-12)  # type: ignore[union-attr]


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.outer_delay: -1 is not zero or a positive number of rounds"):
        run(-1)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_models_are_kept_only_as_long_as_somebody_begins_from_them(delay: int) -> None:
    recording = run(delay, rounds=20)
    assert len(recording.simulation._events) <= (delay + 1 if delay else 2)  # one for each worker then
