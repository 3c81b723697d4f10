"""What a policy sees, in runs small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from halos import Contribution, Diverged, Params, all_of
from halos.sim.simulation import Simulation
from halos.testing import record, tiny

SLOW_LINK = {"bandwidth_gbps": 0.008}  # 1 MB/s
FOUR_MB = {"name": "sized", "parameters": 1_000_000}


@dataclass
class Policy:
    """A policy from a coroutine function."""

    body: Callable[[Simulation], Coroutine[Any, None, None]]

    async def run(self, sim: Simulation) -> None:
        await self.body(sim)


def timing(body: Callable[[Simulation], Coroutine[Any, None, None]], **changes: Any) -> Any:
    sections = tiny(executor={"name": "timing"}, model=FOUR_MB, **changes)
    return record(sections, policy=Policy(body))


def test_two_workers_8_steps_of_1_s_and_4_mb_over_1_mb_per_s_commit_at_12_s() -> None:
    run = record(tiny(executor={"name": "timing"}, model=FOUR_MB, network=SLOW_LINK, steps={"base": 8}))
    # 2 (M−1)/M · 4 MB = 4 MB for two workers
    assert [commit.time for commit in run.commits] == pytest.approx([12.0])


def test_an_asynchronous_job_is_pull_and_compute_and_push_and_the_tie_break() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[1], sim.params, 3, server=0)
        assert update.compute == pytest.approx((4.0, 10.0))  # half as fast: 3 steps take 6 s
        sim.commit(sim.params, [update])

    cluster = {"regions": [{"workers": [2, 1]}], "step_time_ms": 1000, "tie_break_ms": 500}
    run = timing(body, cluster=cluster, network=SLOW_LINK, budget={"local_steps": 3})
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


def test_a_send_arrives_decoded_after_its_bytes() -> None:
    async def body(sim: Simulation) -> None:
        start = sim.params
        arrived = await sim.send(start, 0, 1)
        assert (sim.now, arrived is start) == (pytest.approx(4.0), True)

    regions = {"regions": [{"workers": [1]}, {"workers": [1]}]}
    run = timing(body, cluster=regions, network=SLOW_LINK)
    assert [(each.src, each.dst, each.kind) for each in run.transfers] == [(0, 1, "send")]


def test_half_precision_halves_the_bytes_on_the_link() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 0)

    run = timing(body, network=SLOW_LINK, codec={"name": "fp16"})
    assert (run.transfers[0].bytes, run.transfers[0].time) == (2_000_000, pytest.approx(2.0))


def test_wire_bytes_scale_every_payload_fragments_too() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 0)
        await sim.send(sim.params[(slice(0, 250_000),)], 0, 0)

    run = record(
        tiny(
            executor={"name": "timing"},
            model={"name": "sized", "parameters": 1_000_000, "wire_bytes": 1000},
            network=SLOW_LINK,
        ),
        policy=Policy(body),
    )
    assert [each.bytes for each in run.transfers] == [1000, 250]


def test_collectives_are_serial_and_start_when_the_last_member_has_joined() -> None:
    ends: list[tuple[str, float]] = []

    async def body(sim: Simulation) -> None:
        async def member(index: int, name: str, seconds: float) -> None:
            await sim.sleep(seconds)
            await sim.collective(name).join(sim.workers[index], sim.params)
            ends.append((name, sim.now))

        # "first" is complete at 3 s, "second" at 2 s, but first opened is first served; each takes 4 s.
        several = [(0, "first", 0.0), (1, "second", 1.0), (0, "second", 2.0), (1, "first", 3.0)]
        await all_of([sim.spawn(member(*each)) for each in several])

    timing(body, network=SLOW_LINK)
    assert ends == [("first", 7.0), ("first", 7.0), ("second", 11.0), ("second", 11.0)]


def test_the_mean_of_a_collective_does_not_depend_on_who_joined_first() -> None:
    means: list[Params] = []

    async def body(sim: Simulation) -> None:
        for order in ([0, 1, 2], [2, 1, 0]):
            payloads = [(index + 0.1) * (sim.params + sim.params.map(lambda flat: flat + 1)) for index in range(3)]
            joined = [sim.collective(str(order)).join(sim.workers[index], payloads[index]) for index in order]
            means.append(await joined[0])

    record(tiny(cluster={"regions": [{"workers": [1, 1, 1]}]}), policy=Policy(body))
    assert means[0].flat is not None and means[1].flat is not None
    assert means[0].flat.tolist() == means[1].flat.tolist() == pytest.approx([1.1, 1.1])


def test_rounds_are_the_same_for_every_worker_and_nobody_enters_one_the_others_do_not() -> None:
    entered: dict[int, list[int]] = {0: [], 1: []}

    async def body(sim: Simulation) -> None:
        async def loop(index: int) -> None:
            for r in sim.rounds():
                entered[index].append(r.index)
                await sim.train(sim.workers[index], sim.params, round=r)

        await all_of([sim.spawn(loop(0)), sim.spawn(loop(1))])

    # Two steps each, four a round, a budget of ten: three rounds, though the fast worker runs ahead.
    timing(body, cluster={"regions": [{"workers": [1, 10]}]}, budget={"local_steps": 10})
    assert entered == {0: [0, 1, 2], 1: [0, 1, 2]}


@pytest.mark.parametrize(
    ("global_batch", "steps", "budget", "expected"),
    [
        (None, "fixed 4", 24, [0, 4, 8]),  # two workers of batch 1: a round is four learning-rate steps
        (4, "fixed 4", 24, [0, 0, 4]),  # its eight samples are two of them, rounded down to fours
        (3, "fixed 2", 12, [0, (0, 2), 2]),  # samples 0 and 2, 4 and 6, 8 and 10, by 3, down to twos
        (None, "by_speed 4", 18, [None, None, None]),  # unequal: each job's own
    ],
)
def test_a_rounds_learning_rate_step_is_upstreams(
    global_batch: Any, steps: str, budget: int, expected: list[Any]
) -> None:
    seen = []

    async def body(sim: Simulation) -> None:
        for r in sim.rounds():
            seen.append(r.lr_step)
            await all_of([sim.train(worker, sim.params, round=r) for worker in sim.workers])

    cluster = {"regions": [{"workers": [1.0, 0.5]}]}
    name, base = steps.split()
    allocation = {"name": name, "base": int(base)}
    train = {"global_batch_size": global_batch}
    timing(body, cluster=cluster, train=train, steps=allocation, budget={"local_steps": budget})
    assert seen == expected


def test_the_commit_that_crosses_the_budget_counts_whole_and_ends_the_run() -> None:
    async def body(sim: Simulation) -> None:
        async def loop(index: int) -> None:
            while True:
                update = await sim.train(sim.workers[index], sim.params)
                sim.commit(sim.params, [update])

        await all_of([sim.spawn(loop(0)), sim.spawn(loop(1))])

    run = timing(body, cluster={"regions": [{"workers": [1, 1]}]}, budget={"local_steps": 7})
    # Both arrive at 2, 4, …: 2, 4 | 6, 8. The last one ends it, and nothing after it happens.
    assert [commit.local_steps for commit in run.commits] == [2, 4, 6, 8]
    assert run.simulation.now == 4.0
    assert run.simulation.done


def test_steps_are_committed_dropped_or_in_flight_and_never_counted_twice() -> None:
    async def body(sim: Simulation) -> None:
        first = await sim.train(sim.workers[0], sim.params, 1)
        second = await sim.train(sim.workers[0], sim.params, 2)
        await sim.train(sim.workers[0], sim.params, 4)
        sim.commit(sim.params, [first])
        sim.drop([second])
        with pytest.raises(RuntimeError, match="update 0 of worker 0 is committed, but it was"):
            sim.commit(sim.params, [first])
        with pytest.raises(RuntimeError, match="update 1 of worker 0 is dropped, but it was"):
            sim.drop([second])

    ledger = timing(body).simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight) == (7, 1, 2, 4)


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
    assert run.commits[1].shares[0].drift == pytest.approx(18**0.5)
    assert run.commits[2].shares[0].drift == pytest.approx(18**0.5)
    assert (run.commits[2].shares[0].from_version, run.commits[2].shares[0].staleness) == (0, 1)


def test_a_budget_in_simulated_hours_ends_the_run_at_that_very_moment() -> None:
    run = record(tiny(budget={"local_steps": None, "simulated_hours": 5 / 3600}))
    assert [commit.time for commit in run.commits] == [2.0, 4.0]
    assert run.simulation.now == 5.0
    assert run.simulation.ledger.in_flight == 0  # what began at 4 s was not trained to its end
    assert list(run.simulation.jobs.running) == [0, 1]


def test_a_budget_in_tokens_is_one_in_steps() -> None:
    run = record(tiny(budget={"local_steps": None, "tokens": 33}))  # 8 tokens a step: 5 steps, two rounds of 4
    assert run.simulation.ledger.committed == 8


def test_the_target_loss_ends_the_run_at_the_evaluation_that_reaches_it() -> None:
    # θ goes to 1 as 1 − 0.9^t, two parameters: the loss is 0.81^t. After 2, 4, 6, 8 steps: 0.656, 0.430, 0.282, 0.185.
    run = record(tiny(budget={"local_steps": 4000, "target_loss": 0.3}, evaluate={"every_local_steps": 1}))
    losses = [evaluation.loss for evaluation in run.evaluations]
    assert losses == pytest.approx([1.0, 0.81**2, 0.81**4, 0.81**6], rel=1e-5)


def test_evaluation_is_at_the_start_at_the_interval_and_at_the_end() -> None:
    run = record(tiny(budget={"local_steps": 20}, evaluate={"every_local_steps": 8}))
    assert [(each.local_steps, each.trained_steps, each.tokens) for each in run.evaluations] == [
        (0, 0, 0),
        (8, 8, 64),
        (16, 16, 128),
        (20, 20, 160),
    ]


def test_several_named_evaluation_sets_are_each_evaluated() -> None:
    other = {"name": "synthetic", "samples": 16, "sequence_length": 8, "validation_samples": 16, "hold_out": False}
    run = record(tiny(evaluate={"sets": {"other": other}}))
    assert [each.set for each in run.evaluations] == ["validation", "other", "validation", "other"]


def test_a_lossy_codec_changes_what_an_asynchronous_worker_is_seen_to_have_done() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 1, server=0)
        # lr 0.1 from 0 to an optimum of 1: the difference is −0.1, which is −0.0999755859375 in half precision.
        assert update.delta.flat is not None
        assert update.delta.flat.tolist() == pytest.approx([-0.0999755859375] * 2, abs=1e-9)

    record(tiny(codec="fp16"), policy=Policy(body))


@pytest.mark.parametrize("workers", [1, 16])
def test_one_worker_or_many_reach_the_optimum_of_a_quadratic(workers: int) -> None:
    run = record(tiny(cluster={"regions": [{"workers": [1] * workers}]}, budget={"local_steps": workers * 400}))
    assert run.evaluations[-1].loss < 1e-10


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
    assert [commit.shares[0].staleness for commit in run.global_commits] == [0, 0, 0]


def test_contributions_and_drops_are_lists() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 1)
        with pytest.raises(TypeError, match="contributions are a list"):
            sim.commit(sim.params, update)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="updates are a list"):
            sim.drop(update)  # type: ignore[arg-type]

    timing(body)


def test_a_collective_that_is_over_cannot_be_joined_again() -> None:
    async def body(sim: Simulation) -> None:
        await all_of([sim.collective(7).join(worker, sim.params) for worker in sim.workers])
        with pytest.raises(RuntimeError, match="collective 7 is over"):
            sim.collective(7)
        sim.collective(8).join(sim.workers[0], sim.params)
        with pytest.raises(RuntimeError, match="joins the same collective twice"):
            sim.collective(8).join(sim.workers[0], sim.params)

    timing(body)


def test_an_evaluation_that_is_not_finite_stops_the_run() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 2)
        sim.commit(sim.params.map(lambda flat: flat / 0.0), [update])
        await sim.sleep(1.0)

    with pytest.raises(Diverged, match=r"became .*nan.* at 2 simulated seconds, after 2 committed local steps"):
        record(tiny(evaluate={"every_local_steps": 1}), policy=Policy(body))


def test_a_model_as_good_as_wanted_needs_no_training() -> None:
    run = record(tiny(budget={"local_steps": 40, "target_loss": 2.0}, evaluate={"every_local_steps": 1}))
    assert (len(run.evaluations), run.commits, run.simulation.now) == (1, [], 0.0)


def test_a_rule_that_changes_nothing_does_not_make_old_work_young() -> None:
    async def body(sim: Simulation) -> None:
        late = sim.train(sim.workers[0], sim.params, 3)
        for _ in range(2):
            quick = await sim.train(sim.workers[1], sim.params, 1)
            sim.commit(sim.params, [quick])  # the very same model, a version later
        sim.commit(sim.params, [await late])

    run = timing(body, cluster={"regions": [{"workers": [1.0, 1.0]}]})
    assert [commit.shares[0].staleness for commit in run.commits] == [0, 0, 2]


def test_a_policy_that_never_commits_is_asked_why(caplog: pytest.LogCaptureFixture) -> None:
    async def body(sim: Simulation) -> None:
        for _ in range(200):
            await sim.train(sim.workers[0], sim.params, 1)

    timing(body, budget={"local_steps": 8})  # two workers: 64 jobs for each
    assert [each.message for each in caplog.records] == [
        "129 local steps trained, several times the budget, and none committed: has the policy forgotten sim.commit?"
    ]


def test_an_all_reduce_counts_what_its_rings_links_carry() -> None:
    run = record(tiny(executor={"name": "timing"}, model=FOUR_MB, cluster={"regions": [{"workers": [1] * 4}]}))
    assert {(each.kind, each.bytes) for each in run.transfers} == {("all_reduce", 2 * 3 * 4_000_000)}
