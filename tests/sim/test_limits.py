"""Whether a run goes on: its budget, its target, and when it is given up."""

from __future__ import annotations

import pytest

from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.small_runs import timing


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


def test_a_policy_that_never_commits_is_asked_why(caplog: pytest.LogCaptureFixture) -> None:
    async def body(sim: Simulation) -> None:
        for _ in range(200):
            await sim.train(sim.workers[0], sim.params, 1)

    timing(body, budget={"local_steps": 8})  # two workers: 64 jobs for each
    assert [each.message for each in caplog.records] == [
        "129 local steps trained, several times the budget, and none committed: has the policy forgotten sim.commit?"
    ]
