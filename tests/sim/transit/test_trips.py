"""Trips: asynchronous jobs over shared links, whose course shows as it goes on."""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path
from typing import Any

import pytest

from halos import Lost, all_of
from halos.run.cli import main
from halos.sim.simulation import Simulation
from halos.sim.transit.trips import Trip
from halos.testing import record, tiny
from tests.faulty import HERE, crash, link
from tests.sim.transit.test_journeys import shared
from tests.small_runs import TWO_REGIONS

SMALL = [path for path in sorted((Path(__file__).parents[3] / "configs/small").glob("*.yaml")) if path.stem != "common"]
QUIET = ["observers.progress=false", "observers.tensorboard=false", "observers.trace=false"]
# Both workers are elsewhere than the server, in region 0: they share what leads out of it, and into it.
FAR: dict[str, Any] = {"regions": [{"workers": []}, {"workers": [2.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0}


def test_a_worker_computes_from_the_moment_its_pull_is_there_and_pushes_when_it_is_done() -> None:
    async def body(sim: Simulation) -> None:
        fast, slow = await all_of([sim.train(worker, sim.params, 3, server=0) for worker in sim.workers])
        # Both pull 4 MB at 1/2 MB/s, and half a second: until 8.5 s. Three steps are 3 s, or 6 s.
        assert (fast.compute, slow.compute) == ((8.5, 11.5), (8.5, 14.5))
        # From 11.5 s one pushes alone: 3 MB by 14.5 s. Then each has half: its last MB by 16.5 s, and half a second.
        # The other has 1 MB by then, and the other 3 by 19.5 s.
        assert (fast.time, slow.time) == (17.0, 20.0)
        assert (fast.start_time, slow.start_time) == (0.0, 0.0)
        sim.commit(sim.params, [fast, slow])

    recording = shared(body, FAR, budget={"local_steps": 6})
    assert [(each.kind, each.worker, each.start_time, each.time) for each in recording.transfers] == [
        ("pull", 0, 0.0, 8.5),
        ("push", 0, 11.5, 17.0),
        ("pull", 1, 0.0, 8.5),
        ("push", 1, 14.5, 20.0),
    ]


def test_equal_round_trips_differ_by_the_tie_break() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[1], sim.params, 1, server=0)
        assert (update.compute, update.time) == ((4.5, 6.5), pytest.approx(11.25))

    shared(body, FAR | {"tie_break_ms": 250.0})


def test_what_is_not_known_of_a_job_under_way_is_infinitely_far() -> None:
    async def body(sim: Simulation) -> None:
        job = sim.train(sim.workers[0], sim.params, 3, server=0)
        await sim.sleep(1.0)
        assert sim.jobs.running[0].moments == (0.0, math.inf, math.inf, math.inf)
        await sim.sleep(4.0)
        assert sim.jobs.running[0].moments == (0.0, 4.5, 7.5, math.inf)
        sim.commit(sim.params, [await job])
        assert not sim.jobs.running

    shared(body, FAR)


def test_a_worker_that_crashes_leaves_the_links_to_others() -> None:
    async def body(sim: Simulation) -> None:
        lost, other = (sim.train(worker, sim.params, 1, server=0) for worker in sim.workers)
        with pytest.raises(Lost, match=r"^job 0 of worker 0 lost at 2 s: worker 0 was down$"):
            await lost
        assert sim.now == 2.5
        assert (await other).compute == (5.5, 7.5)  # 1 MB by 2 s, the other 3 by 5 s, and half a second

    recording = shared(body, FAR, faults=crash(0, 2.0, 1.0, detection_seconds=0.5))
    assert [(each.worker, each.time) for each in recording.lost] == [(0, 2.5)]


def test_a_crash_that_is_far_away_keeps_nothing_of_the_jobs_before_it() -> None:
    async def body(sim: Simulation) -> None:
        for _ in range(3):
            sim.commit(sim.params, [await sim.train(sim.workers[0], sim.params, 1, server=0)])
        gc.collect()
        assert not any(isinstance(each, Trip) for each in gc.get_objects())

    shared(body, FAR, faults=crash(0, 1e6, 1.0))


@pytest.mark.parametrize(("at", "steps"), [(0.0, 0), (2.0, 0), (5.0, 0), (8.0, 0), (9.0, 1)])
def test_a_crash_at_any_stage_loses_the_job_and_one_as_it_arrives_does_not(at: float, steps: int) -> None:
    async def body(sim: Simulation) -> None:
        # It pulls until 4.5 s, computes until 5.5 s (4.5 + 1), and its push is there at 10 s.
        job = sim.train(sim.workers[0], sim.params, 1, server=0)
        if at >= 9.0:
            assert (await job).time == 10.0
        else:
            with pytest.raises(Lost, match=f"lost at {at:g} s: worker 0 was down"):
                await job
            assert sim.now == at

    recording = shared(body, FAR, faults=crash(0, at + (at == 9.0), 1.0))
    assert sum(update.steps for update in recording.updates) == steps


def test_a_push_that_is_lost_has_trained_and_one_that_never_began_has_not() -> None:
    async def body(sim: Simulation) -> None:
        for said in ("job 0 of worker 0 lost at 4.5 s: a message 0->1 did not arrive", "a message 1->0 did not arrive"):
            with pytest.raises(Lost, match=said):
                await sim.train(sim.workers[0], sim.params, 1, server=0)
        assert [course.trained for _, course in sim.losses.spent] == [False, True]

    # Messages: the first pull (0); the second pull (1) arrives, its push (2) does not.
    shared(body, FAR, plugins=[HERE], faults={"name": "losing", "messages": [0, 2]})


def test_a_link_that_goes_down_loses_the_pull_before_anything_is_computed() -> None:
    async def body(sim: Simulation) -> None:
        with pytest.raises(Lost, match="job 0 of worker 1 lost at 2 s: the link 0->1 is down"):
            await sim.train(sim.workers[1], sim.params, 1, server=0)
        await sim.faults.returned(sim.workers[1], 0)
        assert (await sim.train(sim.workers[1], sim.params, 1, server=0)).start_time == 3.0

    shared(body, TWO_REGIONS, faults=link(2.0, 1.0, 0.0))


def test_training_is_the_same_whatever_the_links() -> None:
    """Two workers that commit in the same order, over links of their own and over shared ones."""
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}}
    cluster = {"regions": [{"workers": []}, {"workers": [1.0]}, {"workers": [0.3]}], "step_time_ms": 1000.0}
    sections = tiny(cluster=cluster, policy=policy, budget={"local_steps": 20})
    own = record(sections | {"network": {"bandwidth_gbps": 1.0}})
    together = record(sections | {"network": {"name": "shared_links", "up_gbps": 1.0, "down_gbps": 1.0}})
    assert own.thetas == together.thetas
    assert len(own.updates) == len(together.updates) == 10


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_every_policy_runs_over_shared_links_and_twice_alike(path: Path, tmp_path: Path) -> None:
    """All of `configs/small`: what is told of links is what was told of transfers, but what is still under way."""
    options = [
        "budget.local_steps=600",
        "executor=timing",
        "network={name: shared_links, collectives: hierarchical}",
    ]
    made = []
    for name in ("one", "other"):
        assert main([str(path), *options, f"out={tmp_path / name}", *QUIET]) == 0
        made.append({each.name: each.read_bytes() for each in (tmp_path / name).glob("*.jsonl")})
    assert made[0] == made[1]
    summary = json.loads((tmp_path / "one/summary.json").read_text())
    assert summary["finished"] is True
    assert all(0.0 <= link["utilisation"] <= 1.0 + 1e-9 for link in summary["links"].values())
    told: dict[tuple[int, int], int] = {}
    for line in made[0]["transfers.jsonl"].splitlines():
        each = json.loads(line)
        told[each["src"], each["dst"]] = told.get((each["src"], each["dst"]), 0) + each["bytes"]
    if path.stem != "shared_links" and "all_reduce" not in summary["bytes"]:
        for (src, dst), nbytes in told.items():
            link = f"region-{src}.inside" if src == dst else f"region-{src}->region-{dst}"
            assert summary["links"][link]["bytes"] >= nbytes * (1.0 - 1e-9)


def test_links_have_carried_what_is_told_of_them_and_what_is_still_under_way() -> None:
    async def body(sim: Simulation) -> None:
        job = sim.train(sim.workers[0], sim.params, 1, server=0)
        await sim.sleep(2.0)
        half = {"bytes": 2e6, "utilisation": 1.0}  # of the pull
        assert sim.links() == {"region-0.up": half, "region-1.down": half}
        sim.commit(sim.params, [await job])  # its push is under way from 5.5 to 9.5 s, and there at 10 s

    recording = shared(body, FAR | {"regions": [{"workers": []}, {"workers": [1.0]}]})
    whole = {"bytes": 4e6, "utilisation": pytest.approx(4.0 / 10.0)}
    assert recording.simulation.links() == dict.fromkeys(
        ["region-0.down", "region-0.up", "region-1.down", "region-1.up"], whole
    )
