"""The executor that trains nothing."""

from __future__ import annotations

from halos.testing import record, tiny
from halos.testing.witness import first_difference, timeline
from halos.training.timing import Timing

SLOW = {"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0}


def test_no_data_is_opened_and_nothing_has_numbers() -> None:
    # A text that is not there, of a vocabulary that is known without it.
    data = {"name": "text", "path": "/nowhere/at/all", "samples": None}
    sections = tiny(executor={"name": "timing"})
    sections["data"] = {key: value for key, value in data.items() if value is not None}
    run = record(sections)
    assert len(run.updates) == 4
    assert all(update.params.hollow and update.losses == () for update in run.updates)
    assert (run.evaluations, run.simulation.params.hollow, run.simulation.params.size) == ([], True, 2)


def test_the_timeline_is_that_of_the_run_that_trains() -> None:
    sections = tiny(cluster=SLOW, budget={"local_steps": 12})
    real, timed = record(sections), record(sections | {"executor": {"name": "timing"}})
    assert [update.time for update in timed.updates] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert first_difference(timeline(real), timeline(timed)) is None


def test_it_has_no_state_and_describes_no_data() -> None:
    assert (Timing().state(), Timing().describe()) == ({}, {})
