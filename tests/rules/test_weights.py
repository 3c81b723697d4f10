"""Contribution weights, by hand."""

from __future__ import annotations

from dataclasses import dataclass

from halos import Register, hookimpl
from halos.rules.weights import Uniform
from halos.testing import record, tiny

UNEQUAL = {
    "cluster": {"regions": [{"workers": [1.0, 0.5]}]},
    "steps": {"name": "by_speed", "base": 4},
    "budget": {"local_steps": 6},
}


@dataclass
class Asked:
    """Half of every pseudo-gradient that took fewer steps than the mean, which is asked about."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return 0.5 if steps < mean_steps else 1.0


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("asked", Asked)


def test_uniformly_all_count_as_they_are() -> None:
    assert [Uniform().factor(steps, 3.0) for steps in (2, 3, 4)] == [1.0, 1.0, 1.0]
    assert [update.factor for update in record(tiny(**UNEQUAL)).updates] == [1.0, 1.0]


def test_a_factor_is_of_the_steps_against_the_mean_of_the_round_and_scales_the_pseudo_gradient() -> None:
    run = record(tiny(**UNEQUAL, weights={"name": "asked"}, model={"dtype": "float64", "size": 1}), plugins=[__file__])
    assert [(update.steps, update.factor) for update in run.updates] == [(4, 1.0), (2, 0.5)]
    # From 0 to 1 − 0.9⁴ and to 1 − 0.9², which counts for half; the outer step is the mean of both.
    expected = ((1 - 0.9**4) + 0.5 * (1 - 0.9**2)) / 2
    assert abs(run.thetas[0] - expected) < 1e-12
