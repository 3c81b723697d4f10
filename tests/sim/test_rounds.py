"""Rounds: the same for every worker, and their learning-rate steps as upstream has them."""

from __future__ import annotations

from typing import Any

import pytest

from halos import all_of
from halos.sim.ledger import Ledger
from halos.sim.lr_clock import LrClock
from halos.sim.rounds import Rounds
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.recording import Recording
from halos.testing.resuming import problem
from tests.faulty import HERE
from tests.small_runs import timing


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


def rounds(ledger: Ledger, budget: float = 8) -> Rounds:
    """Of two workers that take two steps each, four in all."""
    return Rounds(lambda: [2, 2], LrClock(1, 2), lambda steps, trained: steps >= budget, ledger, seed=0)


def test_rounds_are_opened_until_the_planned_steps_make_up_the_budget() -> None:
    several = rounds(Ledger())
    assert not several.closed
    assert [each.index for each in several.each(lambda: 0)] == [0, 1]
    assert several.closed
    assert [each.index for each in several.each(lambda: 0)] == [0, 1]  # the same for whoever comes later


def test_a_round_is_refused_as_soon_as_what_was_dispatched_makes_up_the_budget() -> None:
    assert [each.index for each in rounds(Ledger()).each(lambda: 7)] == [0, 1]
    assert [each.index for each in rounds(Ledger()).each(lambda: 8)] == []


def test_what_was_lost_or_dropped_is_made_up_for_by_another_round() -> None:
    for kind in ("lost", "dropped"):
        ledger = Ledger()
        setattr(ledger, kind, 1)
        assert [each.index for each in rounds(ledger).each(lambda: 0)] == [0, 1, 2], kind


def test_what_was_skipped_is_made_up_for_by_another_round() -> None:
    """Two steps a worker and a budget of 8: two rounds. One worker out of both leaves 4 of them, and makes four."""
    several, (worker, _) = rounds(Ledger()), record(tiny()).simulation.workers
    opened = []
    for each in several.each(lambda: 0):
        opened.append(each.index)
        several.skip(each, worker)
    assert opened == [0, 1, 2, 3]


FOUR = {"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0, 1.0]}], "step_time_ms": 1000.0}


def sampled(rounds: int = 40, **changes: Any) -> Recording:
    """Rounds of two local steps, of half of four workers."""
    policy = {"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}, "fraction": 0.5}
    sections = tiny(
        cluster=FOUR, model={"dtype": "float64", "size": 1}, policy=policy, budget={"local_steps": 4 * rounds}
    )
    return record(sections | changes, changes.get("plugins", ()))


def who(run: Recording) -> list[tuple[int, ...]]:
    return [tuple(share.updates[0].worker for share in commit.shares) for commit in run.commits]


def test_of_a_fraction_of_the_workers_others_take_part_in_every_round() -> None:
    run = sampled()
    members = who(run)
    assert len(members) == 40 and all(first < second for first, second in members)
    counts = [sum(worker in pair for pair in members) for worker in range(4)]
    assert sum(counts) == 80 and min(counts) >= 10  # 20 each, give or take three standard deviations of 3.2
    assert len(set(members)) == 6  # every pair there is
    assert run.thetas == pytest.approx([1 - 0.81**r for r in range(1, 41)])  # as if they were always the same
    assert [commit.time for commit in run.commits] == [2.0 * r for r in range(1, 41)]
    assert who(sampled()) == members
    assert who(sampled(seed=5)) != members


def test_in_rounds_of_a_fraction_the_schedule_goes_by_the_data_and_is_the_same_for_all() -> None:
    by_round = [
        {update.lr_step for share in commit.shares for update in share.updates} for commit in sampled(4).commits
    ]
    assert by_round == [{0}, {1}, {2}, {3}]  # four samples of global batches of four
    sections = tiny()["train"] | {"global_batch_size": 2}
    by_round = [
        {update.lr_step for share in commit.shares for update in share.updates}
        for commit in sampled(4, train=sections).commits
    ]
    assert by_round == [{0}, {2}, {4}, {6}]


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 1), (0.3, 1), (0.375, 2), (0.6, 2), (0.625, 2), (0.9, 4), (1.0, 4)]
)
def test_a_fraction_is_rounded_to_workers_and_is_at_least_one(fraction: float, count: int) -> None:
    run = sampled(2, policy={"name": "diloco", "fraction": fraction})
    assert {len(pair) for pair in who(run)} == {count}


def test_who_is_not_drawn_keeps_what_it_has_not_delivered_until_it_is() -> None:
    """The first message is lost: its worker's two steps come with its next two."""
    run = sampled(12, faults={"name": "losing", "messages": [0]}, plugins=[HERE])
    assert [len(commit.shares) for commit in run.commits] == [1, *[2] * (len(run.commits) - 1)]
    late = [share for commit in run.commits for share in commit.shares if len(share.updates) == 2]
    (share,) = late
    first, second = share.updates
    assert (first.worker, first.time) == (second.worker, 2.0)
    assert second.start_time > 2.0, "not drawn again at once, with this seed"
    assert run.simulation.ledger.dropped == 0


def test_a_run_of_a_fraction_of_the_workers_is_resumed_exactly() -> None:
    assert problem(tiny(cluster=FOUR, policy={"name": "diloco", "fraction": 0.5}, budget={"local_steps": 20})) is None
