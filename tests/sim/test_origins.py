"""Origins: where updates in flight began is known until the global model takes them in, and not kept any longer."""

from __future__ import annotations

import math

import pytest

from halos import Contribution
from halos.sim.origins import Origins, RecordOptions
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.made import update
from tests.small_runs import Policy


def test_a_start_is_kept_until_it_is_taken() -> None:
    origins, one = Origins(RecordOptions()), update(7)
    origins.add(one)
    assert origins.take(one.receipt()) is one.start
    assert origins.take(one.receipt()) is None


def test_without_the_option_nothing_is_kept() -> None:
    origins, one = Origins(RecordOptions(end_to_end_drift=False)), update(7)
    origins.add(one)
    assert origins.take(one.receipt()) is None


@pytest.mark.parametrize("kept", [True, False])
def test_of_an_update_whose_tensors_are_gone_the_drift_is_known_if_its_start_is_kept(kept: bool) -> None:
    async def body(sim: Simulation) -> None:
        receipt = (await sim.train(sim.workers[0], sim.params, 1)).receipt()  # from 0
        sim.commit(sim.params.map(lambda flat: flat + 3.0), [])
        sim.commit(sim.params, [receipt])

    run = record(tiny(record={"end_to_end_drift": kept}, budget={"local_steps": 1}), policy=Policy(body))
    (way,) = run.commits[-1].shares[0].end_to_end
    assert (way.staleness, way.seconds) == (0, 1.0)
    assert way.drift == pytest.approx(18**0.5) if kept else math.isnan(way.drift)  # two parameters, 3 away each


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_not_known_of_an_update_leaves_the_hop_known(kept: bool) -> None:
    async def body(sim: Simulation) -> None:
        start = sim.params
        receipt = (await sim.train(sim.workers[0], start, 1)).receipt()
        sim.commit(start.map(lambda flat: flat + 3.0), [])
        sim.commit(sim.params, [Contribution([receipt], start, sim.params)])

    run = record(tiny(record={"end_to_end_drift": kept}, budget={"local_steps": 1}), policy=Policy(body))
    share = run.commits[-1].shares[0]
    assert share.hop_drift == pytest.approx(18**0.5)
    assert math.isnan(share.end_to_end[0].drift) == (not kept)


def test_without_the_option_no_drift_is_known_end_to_end_not_even_where_it_is_none() -> None:
    run = record(tiny(record={"end_to_end_drift": False}))  # DiLoCo: 0, if it were asked
    assert all(math.isnan(way.drift) for commit in run.commits for share in commit.shares for way in share.end_to_end)
    assert {share.hop_drift for commit in run.commits for share in commit.shares} == {0.0}


def test_what_is_dropped_is_not_kept() -> None:
    async def body(sim: Simulation) -> None:
        dropped = await sim.train(sim.workers[0], sim.params, 1)
        sim.drop([dropped.receipt()])
        assert not sim._origins._starts
        sim.commit(sim.params, [await sim.train(sim.workers[0], sim.params, 8)])
        assert not sim._origins._starts

    record(tiny(), policy=Policy(body))
