"""Whether a run goes on: its budget, its target, and when it is given up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from halos.errors import ConfigError
from halos.sim.ledger import Ledger
from halos.sim.limits import BudgetOptions, EvaluateOptions, Hopeless, Limits
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


def limits(ledger: Ledger, every: int | None = None, unreliable: bool = False, **budget: Any) -> Limits:
    """Of one worker; a step is 8 tokens."""
    return Limits(BudgetOptions(**budget), 8, every, 1, ledger, unreliable)


def test_of_steps_and_tokens_the_smaller_is_the_budget() -> None:
    assert BudgetOptions(tokens=33).steps(8) == 5  # four steps are 32 tokens
    assert BudgetOptions(tokens=33, local_steps=4).steps(8) == 4
    assert BudgetOptions(tokens=33, local_steps=6).steps(8) == 5
    hours = BudgetOptions(simulated_hours=0.5)
    assert (hours.steps(8), hours.seconds) == (math.inf, 1800.0)


def test_evaluations_are_due_at_multiples_of_the_interval_or_the_first_commit_after_one() -> None:
    run = limits(Ledger(), every=10, local_steps=100)
    assert [steps for steps in (4, 9, 12, 19, 21, 29, 45, 49, 50) if run.due(steps)] == [12, 21, 45, 50]
    assert not limits(Ledger(), local_steps=100).due(99)


def test_the_target_is_a_loss_on_the_validation_set_at_or_below() -> None:
    run = limits(Ledger(), target_loss=0.5)
    assert [run.reached({"validation": loss}) for loss in (0.6, 0.5, 0.4)] == [False, True, True]
    assert not run.reached({"other": 0.1})
    assert not limits(Ledger(), local_steps=1).reached({"validation": 0.0})


def test_under_faults_a_run_in_which_nothing_more_is_committed_is_given_up() -> None:
    ledger = Ledger()
    run = limits(ledger, unreliable=True, local_steps=10)
    assert run.patience == 40  # four times the budget
    ledger.trained = 50
    run.look(64, 2.0, 100.0)  # the worker's first 64 jobs are not asked about
    ledger.committed = 5
    run.look(65, 2.0, 100.0)
    assert run.patience == 50 + 40 + 64 * 2
    ledger.trained = 220
    with pytest.raises(Hopeless, match=r"^170 local steps trained, .* none committed until 200 s; faults keep it"):
        run.look(120, 2.0, 200.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "empty; give local_steps, tokens, simulated_hours or target_loss"),
        ({"local_steps": 0}, "local_steps: 0 is not a positive number"),
        ({"simulated_hours": math.inf}, "simulated_hours: inf is not a positive number"),
        ({"target_loss": math.nan}, "target_loss: nan is not a finite number"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        BudgetOptions(**options)
    assert str(refused.value) == said


def test_an_interval_is_positive_and_validation_is_the_name_of_the_datas_own_tail() -> None:
    with pytest.raises(ConfigError, match=r"^every_local_steps: 0 is not a positive number of steps, or null$"):
        EvaluateOptions(every_local_steps=0)
    with pytest.raises(ConfigError, match=r"^sets\.validation: is the name of the data's own held-out tail"):
        EvaluateOptions(sets={"validation": None})  # type: ignore[dict-item]


@pytest.mark.parametrize("steps", [3, 7, 1234])
def test_a_budget_in_time_takes_in_what_is_due_at_its_end_on_paper(steps: int) -> None:
    """Steps of 0.1 s, one after the other: the sum of so many is not that many tenths of a second, but for rounding."""
    cluster = {"regions": [{"workers": [1.0]}], "step_time_ms": 100.0}
    sections = tiny(cluster=cluster, steps={"name": "fixed", "base": 1}, executor={"name": "timing"})
    run = record(sections | {"budget": {"simulated_hours": steps / 36000}})
    assert (run.simulation.ledger.committed, run.simulation.now) == (steps, steps / 36000 * 3600)
    run = record(sections | {"budget": {"simulated_hours": (steps - 0.001) / 36000}})
    assert run.simulation.ledger.committed == steps - 1


def test_a_budget_in_tokens_is_rounded_up_to_steps_exactly() -> None:
    assert BudgetOptions(tokens=10**17 + 1).steps(10) == 10**16 + 1
