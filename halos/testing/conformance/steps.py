"""Conformance of step allocations: whole numbers of steps, the same whenever the same is asked."""

from __future__ import annotations

from typing import ClassVar

import pytest

from halos.config.yaml_text import Section
from halos.testing.conformance.suite import Suite
from halos.testing.recording import Recording
from halos.testing.situations import SITUATIONS, Situation
from halos.testing.witness import first_difference, timeline

UNEQUAL = [situation for situation in SITUATIONS if situation.links == "jitter"]


class StepsConformance(Suite):
    """Allots steps in runs of 1, 2 and 8 unequal workers, in rounds and without."""

    kind: ClassVar[str] = "step allocation"

    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    @pytest.mark.parametrize("situation", UNEQUAL, ids=str)
    def test_allots_whole_steps_and_does_so_again(self, section: Section, situation: Situation, policy: str) -> None:
        """One or more, of type int; two runs are alike; and asking alone changes nothing."""
        run = self.run_of(section, situation, policy)
        simulation = run.simulation
        where = f"{situation}, {policy}"
        for update in run.updates:
            whole = type(update.steps) is int and update.steps >= 1
            self.check(whole, section, f"{where}: worker {update.worker} is to take {update.steps!r} local steps")
        asked = [[simulation.steps(worker) for worker in simulation.workers] for _ in range(2)]
        self.check(asked[0] == asked[1], section, f"{where}: asked twice in a row, it says {asked[0]} and {asked[1]}")
        what = first_difference(timeline(run), timeline(self.run_of(section, situation, policy)))
        self.check(what is None, section, f"{where}: run twice, {what}")

    def run_of(self, section: Section, situation: Situation, policy: str) -> Recording:
        """A run's timeline."""
        changes = {"steps": section, "policy": {"name": policy}, "executor": {"name": "timing"}}
        sections = situation.sections(2, 8) | changes | {"budget": {"local_steps": 64 * situation.workers}}
        return self.record(section, sections, f", {situation}, {policy}")
