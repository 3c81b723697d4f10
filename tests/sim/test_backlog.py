"""Rounds that go on without what is lost, as DiLoCo's do (arXiv 2311.08105, section 3.2)."""

from __future__ import annotations

import pytest

from halos.sim.backlog import Backlog
from halos.sim.clock import Deadlock
from halos.sim.simulation import Simulation
from halos.testing import record, tiny, two_workers
from tests.faulty import HERE, crash, outage
from tests.small_runs import FOUR_MB, MB_PER_S, TWO_REGIONS, Policy


def test_a_diloco_worker_whose_message_is_lost_goes_on_from_its_own_parameters() -> None:
    """A round leaves 0.81 and 0.9 of 1 − θ; worker 1's first message is lost (arXiv 2311.08105)."""
    run = record(two_workers(rounds=2, faults={"name": "losing", "messages": [1]}), plugins=[HERE])
    assert run.thetas == pytest.approx([1 - 0.81, 1 - (0.81**2 + 0.9**2) / 2])
    assert [commit.local_steps for commit in run.commits] == [2, 6]
    assert [share.steps for share in run.commits[1].shares] == [2, 2]  # both of worker 1's rounds
    assert run.simulation.faults.lost() == {"jobs": 0, "messages": 1}


def test_all_that_a_worker_brings_has_the_factor_that_it_is_averaged_with() -> None:
    """As before, worker 0 counting three times as much: alone it has 1, then three quarters of the mean."""
    weights = {"name": "by_worker", "workers": [3.0, 1.0]}
    run = record(two_workers(rounds=2, faults={"name": "losing", "messages": [1]}, weights=weights), plugins=[HERE])
    assert run.thetas == pytest.approx([1 - 0.81, 1 - (0.75 * 0.81**2 + 0.25 * 0.9**2)])
    factors = [[[update.factor for update in share.updates] for share in commit.shares] for commit in run.commits]
    assert factors == [[[1.0]], [[1.5], [0.5, 0.5]]]


def test_a_diloco_worker_that_crashed_starts_from_the_global_parameters() -> None:
    run = record(two_workers(rounds=2, faults=crash(1, 0.5, 1.0)))
    theta = [1 - 0.81, 1 - (0.81**2 + 0.81 * 0.9) / 2]
    # Six steps are the budget: the step that was lost takes another round.
    assert run.thetas == pytest.approx([*theta, 1 - (1 - theta[1]) * (0.81 + 0.9) / 2])
    assert [commit.local_steps for commit in run.commits] == [2, 5, 8]
    assert run.simulation.ledger.lost == 1


def test_a_round_in_which_nobodys_message_arrives_has_no_commit_and_everybody_goes_on() -> None:
    run = record(two_workers(rounds=2, faults={"name": "losing", "messages": [0, 1]}), plugins=[HERE])
    assert [commit.time for commit in run.commits] == pytest.approx([4.0])
    assert run.thetas == pytest.approx([1 - (0.81**2 + 0.9**2) / 2])
    assert run.commits[0].local_steps == 6


def test_what_a_diloco_worker_did_not_deliver_is_gone_if_it_crashes_afterwards() -> None:
    faults = {"name": "losing", "messages": [1], "down": [2.5, 3.5]}
    run = record(two_workers(rounds=2, faults=faults), plugins=[HERE])
    assert run.thetas[:2] == pytest.approx([1 - 0.81, 1 - 0.81**2])
    assert (run.simulation.ledger.dropped, run.simulation.ledger.lost) == (1, 1)
    assert run.commits[-1].local_steps >= 6


def test_what_a_diloco_worker_trained_is_gone_if_it_crashes_before_the_collective() -> None:
    # Worker 0 takes 2 s for its two steps, worker 1 4 s; worker 0 is down meanwhile.
    cluster = {"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0}
    run = record(tiny(cluster=cluster, faults=crash(0, 2.5, 1.0), budget={"local_steps": 4}))
    assert [[share.updates[0].worker for share in commit.shares] for commit in run.commits] == [[1], [0, 1]]
    assert run.simulation.ledger.dropped == 2


def test_diloco_goes_on_without_a_region_that_is_out_even_in_the_middle_of_a_collective() -> None:
    sections = tiny(
        executor={"name": "timing"}, model=FOUR_MB, cluster=TWO_REGIONS, network=MB_PER_S, faults=outage(1, 4.0),
        budget={"local_steps": 6},
    )  # fmt: skip
    run = record(sections)
    # The all-reduce from 2 s on is lost at 4 s; from then on worker 0 is alone, and needs none.
    assert [commit.time for commit in run.commits] == pytest.approx([6.0, 8.0])
    assert [len(share.updates) for commit in run.commits for share in commit.shares] == [2, 1]


def test_diloco_waits_for_the_first_worker_to_return_and_is_stuck_if_none_ever_does() -> None:
    down = {"name": "crashes", "at": [{"worker": 0, "at_seconds": 3, "seconds": 10}, {"worker": 1, "at_seconds": 3}]}
    run = record(tiny(faults=down, budget={"local_steps": 6}))
    assert [commit.time for commit in run.commits] == pytest.approx([2.0, 15.0])
    for_ever = tiny(faults={"name": "crashes", "at": [{"worker": each, "at_seconds": 3} for each in (0, 1)]})
    with pytest.raises(Deadlock, match=r"nothing is left to happen at 3 s.*; workers 0, 1 are down for ever$"):
        record(for_ever)
    timed = record(for_ever | {"budget": {"simulated_hours": 1}})
    assert (timed.simulation.now, timed.simulation.ledger.committed) == (3600.0, 4)


def test_a_backlog_trains_until_moments_keeps_what_is_not_averaged_and_weighs_relatively() -> None:
    """Workers of 1 and 2 s a step, until 3 s, then 3 steps and 2; kept; until 7, 8 s 3 and 2 more; weighed 3 : 1."""

    async def body(sim: Simulation) -> None:
        backlog, theta = Backlog(sim), sim.params
        done = await backlog.train(theta, None, {0: 3.0, 1: 3.0})
        assert [(update.worker, update.steps, update.time) for update in done] == [(0, 3, 3.0), (1, 2, 4.0)]
        backlog.keep()
        done = await backlog.train(theta, None, {0: 7.0, 1: 8.0})
        assert [(update.steps, update.time) for update in done] == [(3, 7.0), (2, 8.0)]
        delta = await backlog.all_reduce(theta, {0: 3.0, 1: 1.0})
        assert delta is not None
        sim.commit(theta - delta, backlog.contributions())

    cluster = {"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000.0}
    model = {"size": 1, "dtype": "float64"}
    run = record(tiny(cluster=cluster, model=model, budget={"local_steps": 10}), policy=Policy(body))
    assert run.thetas == pytest.approx([0.75 * (1 - 0.9**6) + 0.25 * (1 - 0.9**4)], abs=1e-14)
    assert [share.steps for share in run.commits[0].shares] == [6, 4]
