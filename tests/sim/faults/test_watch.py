"""What a policy may ask about faults, and what is told of them afterwards."""

from __future__ import annotations

import pytest

from halos.testing import record, tiny
from tests.faulty import link
from tests.small_runs import AVERAGE, FOUR_MB, MB_PER_S, TWO_REGIONS


def test_a_worker_that_cannot_reach_its_server_starts_again_when_it_can() -> None:
    sections = tiny(
        executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S, budget={"local_steps": 8},
        policy={"name": "async_local_sgd", "outer": AVERAGE}, faults=link(3.0, 20.0, 0.0),
    )  # fmt: skip
    run = record(sections)
    # Worker 0 pulls 4 s, computes 2 s, pushes 4 s. Worker 1's pull is lost at 3 s; it begins again at 23 s.
    assert [(update.worker, update.time) for update in run.updates] == [
        (0, pytest.approx(10.0)), (0, pytest.approx(20.0)), (0, pytest.approx(30.0)), (1, pytest.approx(33.0)),
    ]  # fmt: skip
    assert run.simulation.faults.lost() == {"jobs": 1, "messages": 1}
