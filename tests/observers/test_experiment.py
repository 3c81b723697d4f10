"""What observers are told of a run before it begins."""

from __future__ import annotations

import math

from halos.testing import record, tiny


def test_an_experiment_holds_the_facts_of_its_run() -> None:
    cluster = {"regions": [{"name": "here", "workers": [2.0, 1.0]}], "step_time_ms": 500.0}
    experiment = record(tiny(cluster=cluster, budget={"local_steps": 12, "simulated_hours": 1})).experiment
    assert (experiment.name, experiment.policy, experiment.seed) == ("run", "diloco", 1234)
    assert (experiment.local_steps, experiment.seconds, experiment.tokens_per_step) == (12, 3600.0, 8)
    assert (experiment.parameters, experiment.real, experiment.resumed_at) == (2, True, None)
    assert [worker.speed for worker in experiment.cluster.workers] == [1.0, 0.5]
    assert experiment.faults.outage(experiment.cluster.workers[0], 0.0) == (math.inf, math.inf)


def test_the_share_of_the_budget_is_that_of_what_is_furthest_along() -> None:
    budget = {"local_steps": 12, "trained_steps": 20, "simulated_hours": 1}
    experiment = record(tiny(budget=budget)).experiment
    assert experiment.share(3, 4, 360.0) == 0.25  # 3 / 12, 4 / 20 and 360 s of 3,600
    assert experiment.share(0, 10, 360.0) == 0.5
    assert experiment.share(0, 0, 2700.0) == 0.75
    assert experiment.share(16, 0, 0.0) == 1.0  # the last commit may bring more than is left
