"""Compute models, by hand."""

from __future__ import annotations

from halos.world.cluster import Cluster, Worker
from halos.world.compute import Constant


def constant() -> Constant:
    model = Constant()
    model.connect(Cluster((), (), 0.5, 0.0), seed=1)
    return model


def test_steps_take_their_time_over_the_speed() -> None:
    assert constant().seconds(Worker(0, 0, 1.0), 3, 0.0, 0) == 1.5
    assert constant().seconds(Worker(1, 0, 0.25), 3, 0.0, 0) == 6.0


def test_they_always_do() -> None:
    model, worker = constant(), Worker(0, 0, 0.25)
    assert {model.seconds(worker, 3, time, job) for time in (0.0, 1e6) for job in (0, 99)} == {6.0}
