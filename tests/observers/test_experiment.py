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
