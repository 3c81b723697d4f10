"""One-step-delay: rounds written out in plain numbers, closed forms of the time, identities."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError
from halos.testing import Recording, record, tiny

PLUGIN = ["halos_one_step_delay"]
LR, MU = 0.2, 0.5


def run(delay: int = 1, rounds: int = 5, **changes: Any) -> Recording:
    """Two workers of 1 and 2 steps a round on a quadratic with its optimum at 1, from 0."""
    sections = tiny(
        model={"dtype": "float64", "size": 1},
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        steps={"name": "by_speed", "base": 2},
        policy={
            "name": "one_step_delay",
            "outer": {"name": "nesterov", "lr": LR, "momentum": MU},
            "outer_delay": delay,
        },
        budget={"local_steps": 3 * rounds},
    )
    return record(sections | changes, PLUGIN)


def thetas(recording: Recording) -> list[float]:
    return [float(commit.params.flat[0]) for commit in recording.globally]  # type: ignore[index]


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
    assert thetas(run()) == pytest.approx(expected, abs=1e-12)


def test_every_trained_step_is_in_the_final_model() -> None:
    ledger = run().simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (15, 15, 0)


def test_contributions_drift_from_the_model_they_began_at_to_the_one_they_are_applied_to() -> None:
    recording = run()
    model = [0.0, 0.0, *thetas(recording)]
    for r, commit in enumerate(recording.globally):
        for share in commit.shares:
            assert share.drift == pytest.approx(abs(model[r + 1] - model[r]))
        assert commit.shares[0].staleness == min(r, 1)


@pytest.mark.parametrize("delay", [0, 1, 2])
@pytest.mark.parametrize("transfer", [0.1, 1.0, 3.0])
def test_rounds_overlap_as_the_closed_form_says(delay: int, transfer: float) -> None:
    """R (C + A) one after the other; R · max(C, A) + min(C, A) overlapped, however late: the collectives are serial."""
    compute, rounds = 2.0, 6
    recording = run(
        delay,
        rounds,
        cluster={"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
        model={"name": "sized", "parameters": 250_000},
        executor={"name": "timing"},
        network={"bandwidth_gbps": 0.008 / (compute * transfer)},  # 1 MB for two workers: A = transfer · C
        steps={"name": "fixed", "base": 2},
        budget={"local_steps": 4 * rounds},
    )
    a = compute * transfer
    expected = rounds * (compute + a) if delay == 0 else rounds * max(compute, a) + min(compute, a)
    assert recording.simulation.now == pytest.approx(expected, rel=1e-9)


def test_without_delay_it_is_diloco() -> None:
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    diloco = run(policy={"name": "diloco", "outer": outer})
    assert thetas(run(0)) == pytest.approx(thetas(diloco), abs=1e-15)


def test_on_a_linear_loss_it_is_diloco_a_round_later() -> None:
    linear = {"name": "quadratic", "size": 3, "curvature": 0.0, "noise": 1.0, "dtype": "float64"}
    same = {"cluster": {"regions": [{"workers": [1.0, 1.0]}]}, "steps": {"name": "fixed", "base": 2}, "model": linear}
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    delayed = run(**same, budget={"local_steps": 40})
    diloco = run(**same, budget={"local_steps": 40}, policy={"name": "diloco", "outer": outer})
    # delayed^{r+1} = DiLoCo^r: the r-th mean makes the same model, only later.
    assert [each.samples for each in delayed.updates] == [each.samples for each in diloco.updates]
    for ours, theirs in zip(delayed.globally, diloco.globally, strict=True):
        assert ours.params.flat.tolist() == pytest.approx(theirs.params.flat.tolist(), abs=1e-12)  # type: ignore[union-attr]


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.outer_delay: -1 is not zero or a positive number of rounds"):
        run(-1)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_models_are_kept_only_as_long_as_somebody_begins_from_them(delay: int) -> None:
    recording = run(delay, rounds=20)
    assert len(recording.config.policy._models) <= delay + 1  # type: ignore[attr-defined]
