"""Conformance of contribution weights: factors that are 1 where there is nothing to weigh."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest

from halos.config.yaml_text import Section
from halos.rules.weights import ContributionWeights
from halos.testing.conformance.suite import Suite
from halos.testing.situations import Situation
from halos.testing.witness import everything, first_difference

CASES = [(1, 1.0), (1, 100.0), (100, 1.0), (7, 5.5), (32, 18.25)]  # steps, and their mean over the workers


class WeightsConformance(Suite):
    """Factors asked for, and runs of equal steps, which must be as if there were no weights."""

    kind: ClassVar[str] = "contribution weights"

    def test_factors_are_finite_and_not_negative(self, section: Section) -> None:
        for (steps, mean), factor in zip(CASES, self.factors(section)):
            good = isinstance(factor, (int, float)) and math.isfinite(factor) and factor >= 0.0
            self.check(good, section, f"{steps} steps of {mean:g} on average count {factor!r}")

    def test_over_equal_steps_they_are_one(self, section: Section) -> None:
        weights: ContributionWeights = self.build(section)
        for steps in (1, 2, 3, 7, 32, 1000):
            factor = weights.factor(steps, float(steps))
            self.check(factor == 1.0, section, f"{steps} steps of {steps} on average count {factor!r}, not 1")

    def test_weights_of_workers_are_positive(self, section: Section) -> None:
        """Of those that have `weight`."""
        run = self.record(section, Situation(2, "jitter").sections(2, 1) | {"weights": section})
        weight = getattr(run.config.weights, "weight", lambda worker: 1.0)
        for worker in run.simulation.workers:
            counts = weight(worker)
            self.check(0.0 < counts < math.inf, section, f"worker {worker.id} counts {counts!r}; it must be positive")

    def test_are_a_function_of_their_arguments(self, section: Section) -> None:
        weights: ContributionWeights = self.build(section)
        backwards = [weights.factor(*case) for case in reversed(CASES)][::-1]
        again = [weights.factor(*case) for case in CASES]
        self.check(backwards == again == self.factors(section), section, f"{CASES} count {backwards}, then {again}")

    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    @pytest.mark.parametrize("workers", [1, 2, 16])
    def test_runs_of_equal_steps_do_not_notice_them(self, section: Section, policy: str, workers: int) -> None:
        sections = Situation(workers, "jitter").sections(2, 4) | {"policy": {"name": policy}}
        weighted = self.record(section, sections | {"weights": section}, f", {workers} workers, {policy}")
        uniform = self.record(section, sections)
        what = first_difference(everything(weighted), everything(uniform))
        self.check(what is None, section, f"{workers} workers, {policy}: with and without weights, {what}")

    def factors(self, section: Section) -> list[float]:
        """Return a new instance's factors for all cases."""
        weights: ContributionWeights = self.build(section)
        with self.about(section):
            return [weights.factor(*case) for case in CASES]
