"""Jobs: what a worker is given to do, how long it takes, and the update that comes of it."""

from __future__ import annotations

import math

import pytest

from halos.errors import UserError
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.small_runs import MB_PER_S, Policy, timing


def test_an_asynchronous_job_is_pull_and_compute_and_push_and_the_tie_break() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[1], sim.params, 3, server=0)
        assert update.compute == pytest.approx((4.0, 10.0))  # half as fast: 3 steps take 6 s
        sim.commit(sim.params, [update])

    cluster = {"regions": [{"workers": [2, 1]}], "step_time_ms": 1000, "tie_break_ms": 500}
    run = timing(body, cluster=cluster, network=MB_PER_S, budget={"local_steps": 3})
    assert run.updates[0].time == pytest.approx(14.5)
    pull, push = run.transfers
    assert (pull.kind, pull.start_time, pull.time, pull.bytes) == ("pull", 0.0, pytest.approx(4.0), 4_000_000)
    assert (push.kind, push.time - push.start_time) == ("push", pytest.approx(4.0))


def test_samples_and_learning_rate_step_are_those_of_the_dispatch() -> None:
    async def body(sim: Simulation) -> None:
        slow, fast = sim.workers
        first = sim.train(slow, sim.params, 10)
        second = await sim.train(fast, sim.params, 2)
        third = await sim.train(fast, sim.params, 2)
        for update, samples, lr_step in [
            (await first, (0, 40), 0),
            (second, (40, 48), 5),
            (third, (48, 56), 6),
        ]:
            assert update.samples == samples
            assert update.lr_step == lr_step  # first sample // 8
        sim.commit(sim.params, [await first, second, third])

    cluster = {"regions": [{"workers": [1, 5]}]}
    timing(body, cluster=cluster, train={"batch_size": 4, "global_batch_size": 8}, budget={"local_steps": 14})


def test_a_worker_has_one_job_at_a_time() -> None:
    async def body(sim: Simulation) -> None:
        sim.train(sim.workers[0], sim.params)
        with pytest.raises(RuntimeError, match="worker 0 already has a job"):
            sim.train(sim.workers[0], sim.params)

    timing(body)


def test_a_lossy_codec_changes_what_an_asynchronous_worker_is_seen_to_have_done() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 1, server=0)
        # lr 0.1 from 0 to an optimum of 1: the difference is −0.1, which is −0.0999755859375 in half precision.
        assert update.delta.flat is not None
        assert update.delta.flat.tolist() == pytest.approx([-0.0999755859375] * 2, abs=1e-9)

    record(tiny(codec="fp16"), policy=Policy(body))


def test_a_job_takes_at_least_one_step() -> None:
    async def body(sim: Simulation) -> None:
        with pytest.raises(ValueError, match="worker 0 is to take 0 local steps; a job has at least one"):
            sim.train(sim.workers[0], sim.params, 0)

    assert timing(body).simulation.jobs.count == 0


def test_jobs_are_numbered_as_they_are_dispatched_and_run_until_they_arrive() -> None:
    async def body(sim: Simulation) -> None:
        slow, fast = sim.train(sim.workers[0], sim.params, 4), sim.train(sim.workers[1], sim.params, 1)
        assert (list(sim.jobs.running), sim.jobs.dispatched) == ([0, 1], 5)
        assert ((await fast).id, sim.now, list(sim.jobs.running)) == (1, 1.0, [0])
        assert ((await slow).id, sim.now, list(sim.jobs.running)) == (0, 4.0, [])

    assert timing(body).simulation.jobs.count == 2


def test_the_steps_until_a_moment_are_the_fewest_that_get_there_and_one_at_least() -> None:
    """Steps of 1 s and 2 s, from 3 s on."""

    async def body(sim: Simulation) -> None:
        fast, slow = sim.workers
        await sim.sleep(3.0)
        found = [sim.steps_until(fast, moment) for moment in (0.0, 3.5, 5.0, 5.1, 1003.0)]
        assert found == [1, 1, 2, 3, 1000]
        assert [sim.steps_until(slow, moment) for moment in (5.0, 5.1, 1003.0)] == [1, 2, 500]
        with pytest.raises(UserError, match=r"compute: \d+ local steps of worker 0 end before inf s"):
            sim.steps_until(fast, math.inf)
        update = await sim.train(slow, sim.params, sim.steps_until(slow, 10.0))
        assert (update.steps, update.time) == (4, 11.0)
        sim.commit(sim.params, [update])

    timing(body, cluster={"regions": [{"workers": [1.0, 0.5]}], "step_time_ms": 1000}, budget={"local_steps": 4})


def test_steps_of_which_ten_are_a_second_but_for_rounding_errors_are_ten() -> None:
    async def body(sim: Simulation) -> None:
        assert [sim.steps_until(sim.workers[0], n / 10) for n in range(1, 200)] == [*range(1, 200)]
        sim.commit(sim.params, [await sim.train(sim.workers[0], sim.params, 1)])

    timing(body, cluster={"regions": [{"workers": [1.0]}], "step_time_ms": 100}, budget={"local_steps": 1})
