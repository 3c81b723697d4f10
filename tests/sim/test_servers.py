"""Servers: versions, staleness and drift of what is committed."""

from __future__ import annotations

import pytest

from halos import Contribution, Update, Worker, all_of
from halos.sim.servers import Servers
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.made import params, update
from tests.small_runs import Policy, timing


def servers() -> Servers:
    """From (0, 0)."""
    return Servers(params(0.0, 0.0), origin=lambda update: update.start, real=True)


def test_drift_and_staleness_are_of_base_and_target() -> None:
    async def body(sim: Simulation) -> None:
        start = sim.params  # (0, 0)
        update = await sim.train(sim.workers[0], start, 1)
        moved = start.map(lambda flat: flat + 3.0)
        sim.commit(moved, [])  # a merge: the version stays
        assert sim.version == 0
        sim.commit(moved.map(lambda flat: flat + 1.0), [update])  # from version 0 to version 0, but (3, 3) away
        late = await sim.train(sim.workers[0], start, 1)
        sim.commit(start, [Contribution([late], base=start, target=moved)])

    run = record(tiny(), policy=Policy(body))
    assert [commit.kind for commit in run.commits] == ["merge", "update", "update"]
    assert run.commits[1].shares[0].hop_drift == pytest.approx(18**0.5)
    assert run.commits[2].shares[0].hop_drift == pytest.approx(18**0.5)
    assert (run.commits[2].shares[0].from_version, run.commits[2].shares[0].hop_staleness) == (0, 1)


def test_one_model_committed_to_two_servers_has_a_version_at_each() -> None:
    async def body(sim: Simulation) -> None:
        theta = sim.params
        for _ in range(3):
            update = await sim.train(sim.workers[0], theta, 1)
            theta = theta - update.delta
            sim.commit(theta, [], server="mirror")
            sim.commit(theta, [update])
            sim.commit(theta, [], server="mirror")

    run = record(tiny(), policy=Policy(body))
    assert [commit.shares[0].hop_staleness for commit in run.global_commits] == [0, 0, 0]


def test_a_rule_that_changes_nothing_does_not_make_old_work_young() -> None:
    async def body(sim: Simulation) -> None:
        late = sim.train(sim.workers[0], sim.params, 3)
        for _ in range(2):
            quick = await sim.train(sim.workers[1], sim.params, 1)
            sim.commit(sim.params, [quick])  # the very same model, a version later
        sim.commit(sim.params, [await late])

    run = timing(body, cluster={"regions": [{"workers": [1.0, 1.0]}]})
    assert [commit.shares[0].hop_staleness for commit in run.commits] == [0, 0, 2]


def test_a_local_server_begins_at_version_0_and_only_contributions_move_it() -> None:
    made = servers()
    merge = made.commit("east", params(1.0, 0.0), [], 1.0)
    assert (merge.kind, merge.version, merge.local_steps) == ("merge", 0, 0)
    first = made.commit("east", params(2.0, 0.0), [update(0, steps=3), update(1, steps=4)], 2.0)
    assert (first.kind, first.version, first.local_steps) == ("update", 1, 7)
    assert (made.main.version, made.main.local_steps) == (0, 0)


def test_versions_of_another_server_count_for_nothing_at_the_global_one() -> None:
    async def body(sim: Simulation) -> None:
        theta = sim.params
        for _ in range(2):  # two steps of a replica for each of the global model
            for _ in range(2):
                latest = await sim.train(sim.workers[0], theta, 1)
                theta = latest.params
                sim.commit(theta, [latest], server="replica")
            sim.commit(theta, [Contribution([latest], latest.start, sim.params)])
        latest = await sim.train(sim.workers[0], theta, 1)  # version 4 of the replica, 2 of the global model
        sim.commit(latest.params, [latest], server="replica")
        late = await sim.train(sim.workers[0], latest.params, 1)  # version 5 of the replica, and of nobody else
        sim.commit(late.params, [late], server="other")
        sim.commit(late.params, [late])

    run = timing(body)
    shares = [commit.shares[0] for commit in run.global_commits]
    assert [share.hop_staleness for share in shares] == [0, 0, 0]
    (other,) = [commit.shares[0] for commit in run.commits if commit.server == "other"]
    assert (other.from_version, other.hop_staleness) == (0, 0)


def test_a_contribution_is_as_far_away_as_base_and_target_are() -> None:
    one = Contribution([update()], params(0.0, 0.0), params(3.0, 4.0), from_version=0)
    assert servers().commit("global", params(1.0, 1.0), [one], 1.0).shares[0].hop_drift == 5.0


def test_a_single_update_that_is_in_no_list_is_refused() -> None:
    with pytest.raises(TypeError, match="contributions are a list, also when there is one"):
        servers().commit("global", params(1.0, 1.0), update(), 1.0)  # type: ignore[arg-type]


def test_all_who_begin_at_one_moment_elsewhere_than_from_the_global_model_begin_at_one_version_of_it() -> None:
    """Two workers train from replicas of their own, two steps of 1 s each; who ends a round last commits their mean.

    Worker 0 begins the next round before that commit, worker 1 after it, both at 2 s, when version 1 is there.
    """

    async def body(sim: Simulation) -> None:
        ended: dict[int, list[Update]] = {0: [], 1: []}

        async def work(worker: Worker) -> None:
            theta = sim.params
            for index in ended:
                update = await sim.train(worker, theta, 2)
                theta = update.params
                ended[index].append(update)
                if len(ended[index]) == 2:
                    sim.commit(theta.map(lambda flat: flat * 1.0), ended[index])

        await all_of([sim.spawn(work(worker)) for worker in sim.workers])

    run = record(tiny(cluster={"regions": [{"workers": [1.0, 1.0]}]}), policy=Policy(body))
    assert [(update.worker, update.start_version, update.global_version) for update in run.updates] == [
        (0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1),
    ]  # fmt: skip
    assert [[way.staleness for share in commit.shares for way in share.end_to_end] for commit in run.commits] == [
        [0, 0], [0, 0],
    ]  # fmt: skip
