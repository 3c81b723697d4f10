"""Conformance of compute models: positive times that are functions of their arguments."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import pytest

from halos.config.yaml_text import Section
from halos.testing.conformance.networks import small_cluster
from halos.testing.conformance.suite import Suite
from halos.testing.situations import Situation
from halos.testing.witness import first_difference, timeline
from halos.world.compute import ComputeModel

STEPS, TIMES, JOBS = (1, 2, 5, 64), (0.0, 3.5, 86_400.0), (0, 1, 17)


class ComputeConformance(Suite):
    """Asked for the times of jobs of two workers, one half as fast as the other, and used in runs."""

    kind: ClassVar[str] = "compute model"

    def test_times_are_seconds(self, section: Section) -> None:
        """Positive and finite."""
        for case, seconds in self.answers(section, self.connected(section)).items():
            good = isinstance(seconds, (int, float)) and seconds > 0.0 and math.isfinite(seconds)
            self.check(good, section, f"{case} takes {seconds!r}, not a time in seconds")

    def test_more_steps_take_more_time(self, section: Section) -> None:
        """For the same worker, from the same moment on, as the same job."""
        model, (fast, slow) = self.connected(section), small_cluster(1).workers
        for worker, time, job in itertools.product((fast, slow), TIMES, JOBS):
            several = [model.seconds(worker, steps, time, job) for steps in STEPS]
            case = f"job {job} of worker {worker.id} at {time:g} s takes {several} for {STEPS} steps"
            self.check(several == sorted(set(several)), section, f"{case}: not more for more")

    def test_is_a_function_of_its_arguments(self, section: Section) -> None:
        """Whatever was asked before, in whatever order, and in another instance as well."""
        model = self.connected(section)
        first = self.answers(section, model)
        backwards = self.answers(section, model, reverse=True)
        for other, what in (
            (backwards, "asked again"),
            (self.answers(section, self.connected(section)), "another instance"),
        ):
            wrong = next((case for case in first if first[case] != other[case]), None)
            said = "" if wrong is None else f"{wrong} takes {first[wrong]!r} and then, {what}, {other[wrong]!r}"
            self.check(wrong is None, section, said)

    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    @pytest.mark.parametrize("workers", [1, 2, 16])
    def test_runs_twice_alike(self, section: Section, policy: str, workers: int) -> None:
        changes = {"compute": section, "policy": {"name": policy}, "executor": {"name": "timing"}}
        sections = Situation(workers, "jitter").sections(2, 8) | {"budget": {"local_steps": 16 * workers}} | changes
        where = f", {workers} workers, {policy}"
        one, other = (timeline(self.record(section, sections, where)) for _ in range(2))
        what = first_difference(one, other)
        self.check(what is None, section, f"{workers} workers, {policy}: run twice, {what}")

    def connected(self, section: Section) -> ComputeModel:
        """A new model, for two workers."""
        model: ComputeModel = self.build(section)
        with self.about(section, ", two workers"):
            model.connect(small_cluster(1), 1234)
        return model

    def answers(self, section: Section, model: ComputeModel, reverse: bool = False) -> dict[str, Any]:
        """The time of every job, by what was asked."""
        cases = list(itertools.product(small_cluster(1).workers, STEPS, TIMES, JOBS))
        with self.about(section):
            return {
                f"job {job} of worker {worker.id} ({steps} steps at {time:g} s)": model.seconds(
                    worker, steps, time, job
                )
                for worker, steps, time, job in (reversed(cases) if reverse else cases)
            }
