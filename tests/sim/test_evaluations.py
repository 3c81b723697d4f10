"""Which models are evaluated and when, on bowls whose losses are worked out by hand.

A local step of 0.1 takes θ a tenth of the way to 1, so that after t of them from 0 it is 1 − 0.9^t.
"""

from __future__ import annotations

import re
from typing import Any, Optional

import pytest

from halos.errors import ConfigError
from halos.sim.clock import Deadlock
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.recording import Recording
from halos.testing.resuming import problem
from halos.values.params import Params
from tests.small_runs import Policy, timing

ONE = {"size": 1, "dtype": "float64"}  # parameters: the loss is ½ (1 − θ)²
FAST_AND_SLOW = {"regions": [{"workers": [1.0, 0.5]}]}
ASYNC = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}}
HALOS = {
    "name": "halos",
    "outer": {"name": "sgd", "lr": 1.0},
    "local": {"name": "sgd", "lr": 1.0},
    "local_updates": 2,
    "merge_weight": 1.0,
}


def evaluated(run: Recording, of: str = "global") -> list[tuple[float, float]]:
    """When a model was evaluated, and the distance from 1 that its loss stands for (of one parameter)."""
    return [(each.time, pytest.approx((2 * each.loss) ** 0.5, rel=1e-6)) for each in run.evaluations if each.of == of]


# Two workers take 2 steps of 1 s a round, together: θ is 0.19 from 2 s on, and 0.3439 at 4 s, when the run is over.


def test_every_so_many_seconds_the_model_is_evaluated_as_it_is_at_that_moment() -> None:
    run = record(tiny(model=ONE, evaluate={"every_seconds": 1.5}))
    assert evaluated(run) == [(0.0, 1.0), (1.5, 1.0), (3.0, 0.81), (4.0, 0.6561)]
    assert [(each.version, each.local_steps, each.trained_steps) for each in run.evaluations] == [
        (0, 0, 0), (0, 0, 0), (1, 4, 4), (2, 8, 8),
    ]  # fmt: skip


def test_at_the_moment_of_a_commit_it_is_the_model_after_it_and_both_intervals_at_once_evaluate_it_once() -> None:
    run = record(tiny(model=ONE, evaluate={"every_seconds": 1.0, "every_local_steps": 4}))
    assert evaluated(run) == [(0.0, 1.0), (1.0, 1.0), (2.0, 0.81), (3.0, 0.81), (4.0, 0.6561)]


def test_up_to_the_end_of_a_budget_in_time_in_which_nothing_happens_any_more() -> None:
    budget = {"local_steps": None, "simulated_hours": 5.5 / 3600}
    run = record(tiny(model=ONE, budget=budget, evaluate={"every_seconds": 2.5}))
    assert evaluated(run) == [(0.0, 1.0), (2.5, 0.81), (5.0, 0.6561)]  # at 5.5 s, it is still that model
    assert run.simulation.now == 5.5


@pytest.mark.parametrize("budget", [{"local_steps": 4000}, {"local_steps": None, "simulated_hours": 5.5 / 3600}])
def test_the_target_loss_ends_the_run_at_that_moment(budget: dict[str, Any]) -> None:
    target = 0.5 * 0.6561**2 + 1e-6
    run = record(tiny(model=ONE, budget={**budget, "target_loss": target}, evaluate={"every_seconds": 4.75}))
    assert evaluated(run) == [(0.0, 1.0), (4.75, 0.6561)]
    assert (run.simulation.now, run.simulation.done, len(run.commits)) == (4.75, True, 2)


def test_nobody_waits_for_ever_because_of_evaluations() -> None:
    async def body(sim: Simulation) -> None:
        await sim.event("never")

    with pytest.raises(Deadlock, match="nothing is left to happen at 0 s"):
        record(tiny(evaluate={"every_seconds": 1.0}), policy=Policy(body))


def test_a_run_that_trains_nothing_is_not_evaluated_for_ever() -> None:
    async def body(sim: Simulation) -> None:
        await sim.sleep(1e12)

    assert timing(body, evaluate={"every_seconds": 1e-3, "of": ["global", "workers"]}).evaluations == []


def test_the_workers_mean_is_of_where_each_last_was_and_the_first_worker_by_itself_where_that_was() -> None:
    # The fast one's 2 steps take 2 s, the slow one's 4 s. The fast one brings 0.19 at 2 s and goes on from there; the
    # slow one began from 0. At 4 s the slow one's 0.19 is added, 0.38, from which it goes on, and then the fast one's
    # 0.1539.
    run = record(
        tiny(
            model=ONE,
            cluster=FAST_AND_SLOW,
            policy=ASYNC,
            budget={"local_steps": 6},
            evaluate={"every_seconds": 3.0, "of": ["global", "workers", "first_worker"]},
        )
    )
    assert evaluated(run) == [(0.0, 1.0), (3.0, 0.81), (4.0, 1 - 0.5339)]
    # At the start both are where the model is; at 3 s at 0.19 and 0; at 4 s the fast one has come to 0.3439.
    means = [(0.0, 1.0), (3.0, 1 - (0.19 + 0.0) / 2), (4.0, 1 - (0.3439 + 0.38) / 2)]
    assert evaluated(run, "workers") == means
    assert evaluated(run, "first_worker") == [(0.0, 1.0), (3.0, 1 - 0.19), (4.0, 1 - 0.3439)]  # the fast one
    assert [each.of for each in run.evaluations] == ["global", "workers", "first_worker"] * 3


def test_local_servers_are_evaluated_by_name_from_their_first_commit_on() -> None:
    # Local server 0 has 0.19 at 2 s, 0.3439 at 4 s, when it sends that to the global one and takes over the same. Local
    # server 1 has its worker's 0.19 at 4 s.
    run = record(
        tiny(
            model=ONE,
            cluster={"regions": [{"workers": [1.0]}, {"workers": [0.5]}]},
            network={"bandwidth_gbps": float("inf")},
            policy=HALOS,
            budget={"local_steps": None, "simulated_hours": 5 / 3600},
            evaluate={"every_seconds": 3.0, "of": ["local_servers", "global"]},
        )
    )
    assert evaluated(run) == [(0.0, 1.0), (3.0, 1.0), (5.0, 0.6561)]
    assert evaluated(run, "local-0") == [(3.0, 0.81), (5.0, 0.6561)]
    assert evaluated(run, "local-1") == [(5.0, 0.81)]


def test_at_a_moment_of_both_intervals_what_has_changed_since_the_commit_is_evaluated_once_more() -> None:
    # At 2 s the local server has 0.19 and sends that; the global one makes 0.095 of it, with an outer rate of 0.5, and
    # is evaluated by local steps. Then the local server takes that over, still at 2 s.
    sections = tiny(
        model=ONE,
        cluster={"regions": [{"workers": [1.0]}]},
        network={"bandwidth_gbps": float("inf")},
        policy=HALOS | {"outer": {"name": "sgd", "lr": 0.5}, "local_updates": 1},
        budget={"local_steps": None, "simulated_hours": 3 / 3600},
    )
    of = {"every_seconds": 2.0, "of": ["global", "local_servers"]}
    seconds, both = (record(sections | {"evaluate": of | by}) for by in ({}, {"every_local_steps": 2}))
    assert evaluated(seconds, "local-0") == [(2.0, 0.905)]
    assert evaluated(both, "local-0") == [(2.0, 0.81), (2.0, 0.905)]
    assert evaluated(seconds) == evaluated(both) == [(0.0, 1.0), (2.0, 0.905)]


class Offering:
    """DiLoCo's shape, with a model of its own: half of the global one, once there is one."""

    def prepare(self, sim: Simulation) -> None:
        self.half: Optional[Params] = None
        sim.offer("half", lambda: self.half)

    async def run(self, sim: Simulation) -> None:
        for r in sim.rounds():
            update = await sim.train(sim.workers[0], sim.params, round=r)
            self.half = update.params * 0.5
            sim.commit(update.params, [update])


def test_a_model_that_the_policy_offers_is_evaluated_unless_it_is_left_out() -> None:
    changes: dict[str, Any] = {"model": ONE, "cluster": {"regions": [{"workers": [1.0]}]}, "budget": {"local_steps": 2}}
    by_default = record(tiny(**changes), policy=Offering())
    assert evaluated(by_default, "half") == [(2.0, 1 - 0.095)]
    assert record(tiny(**changes, evaluate={"of": ["half"]}), policy=Offering()).evaluations[0].of == "half"
    left_out = record(tiny(**changes, evaluate={"of": ["global"]}), policy=Offering())
    assert {each.of for each in left_out.evaluations} == {"global"}
    with pytest.raises(ValueError, match="global is the name of the model that the policy commits"):
        left_out.simulation.offer("global", lambda: None)


def test_a_model_that_nobody_has_is_refused_and_one_that_this_policy_lacks_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "evaluate.of: 'halv' is none of global, local_servers, workers, first_worker, half (did you mean 'half'?)"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        record(tiny(evaluate={"of": ["global", "halv"]}), policy=Offering())
    run = record(tiny(evaluate={"of": ["global", "local_servers"]}))
    assert {each.of for each in run.evaluations} == {"global"}
    assert caplog.messages == ["evaluate.of: there were no local servers in this run"]
    assert record(tiny(evaluate={"of": ["local_servers"]})).evaluations == []
    assert caplog.messages[1:] == ["evaluate.of: there were no local servers in this run"]
    record(tiny(evaluate={"of": ["local_servers"]}, executor={"name": "timing"}))  # where there are never any losses
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("policy", [ASYNC, HALOS])
def test_a_resumed_run_evaluates_what_the_run_would_have(policy: dict[str, Any]) -> None:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.5]}]},
        network={"bandwidth_gbps": [[1.0, 1e-7], [1e-7, 1.0]]},
        policy=policy,
        budget={"local_steps": 40},
        evaluate={"every_seconds": 0.7, "every_local_steps": 6, "of": ["global", "local_servers", "workers"]},
    )
    assert problem(sections, cuts=4) is None
