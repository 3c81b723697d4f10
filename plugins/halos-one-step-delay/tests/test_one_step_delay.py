"""One-step-delay: rounds written out in plain numbers, closed forms of the time, identities."""

from __future__ import annotations

from typing import Any

import pytest

from halos import ConfigError
from halos.testing import Recording, record, two_workers
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


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = tuple({"name": "one_step_delay", "outer_delay": k, "outer": {"momentum": 0.5}} for k in (0, 1, 2))

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        """One after the other without delay; overlapped with any, however late: the collectives are serial."""
        if section["outer_delay"] == 0:
            return rounds * (compute + all_reduce)
        return rounds * max(compute, all_reduce) + min(compute, all_reduce)


def test_without_delay_it_is_diloco() -> None:
    outer = {"name": "nesterov", "lr": LR, "momentum": MU}
    diloco = run(policy={"name": "diloco", "outer": outer})
    assert run(0).thetas == pytest.approx(diloco.thetas, abs=1e-15)


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
    assert len(recording.simulation._events) <= delay + 1
