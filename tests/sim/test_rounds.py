"""Rounds: the same for every worker, and their learning-rate steps as upstream has them."""

from __future__ import annotations

from typing import Any

import pytest

from halos import all_of
from halos.sim.ledger import Ledger
from halos.sim.rounds import Round, Rounds
from halos.sim.simulation import Simulation
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
    return Rounds(lambda: [2, 2], 1, 2, lambda steps: steps >= budget, ledger)


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


def test_the_mean_of_a_rounds_steps_is_over_its_workers() -> None:
    assert Round(0, None, (2, 4, 9)).mean_steps == 5.0
