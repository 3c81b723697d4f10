"""Inner states: what they hold, and that one that only stands in leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos.training.inner_states import InnerStates
from halos.training.kept import Kept
from halos.training.optimizers import SGD
from halos.training.options import TrainOptions
from halos.values.params import Layout

LAYOUT = Layout({"vector": (2,)})
CPU = torch.device("cpu")


class Workers:
    """Two numbers, and whoever steps along (1, 1): with momentum 0.5 it is 1 after one step, 1.5 after two."""

    def __init__(self, **options: Any) -> None:
        self.options = TrainOptions(optimizer=SGD(momentum=0.5), **options)
        self.states = InnerStates(self.options, LAYOUT, Kept(torch.nn.Linear(1, 1)), CPU)

    def step(self, worker: int, job: bool = True) -> None:
        state = self.states.of(worker)
        state.moments = self.states.moments(state, job)
        self.options.optimizer.step(torch.zeros(2), torch.ones(2), state.moments, 0.1, LAYOUT)

    def momentum(self, worker: int) -> Any:
        moments = self.states.saved(worker)["optimizer"]
        return None if moments is None else moments["momentum_buffer"].tolist()


def test_each_worker_has_its_own_and_one_that_is_forgotten_begins_anew() -> None:
    workers = Workers()
    assert workers.states.known(0) is None and workers.momentum(0) is None
    for worker in (0, 0, 1):
        workers.step(worker)
    assert [workers.momentum(worker) for worker in (0, 1)] == [[1.5, 1.5], [1.0, 1.0]]
    workers.states.forget(0)
    assert workers.states.known(0) is None and workers.momentum(0) is None


def test_moments_are_new_in_every_job_if_that_is_wanted() -> None:
    workers = Workers(optimizer_state="new")
    for _ in range(3):
        workers.step(0)
        assert workers.momentum(0) == [1.0, 1.0]
    workers.step(0, job=False)  # a step along a gradient, say, which is no job
    assert workers.momentum(0) == [1.5, 1.5]


def test_what_stands_in_is_copied_and_leaves_no_trace() -> None:
    workers = Workers()
    workers.step(0)
    given = workers.states.copied(0)
    for worker in (0, 3):  # one that had a job, one that had none
        with workers.states.standing_in(worker, given):
            workers.step(worker)
            workers.states.skipped += 1
            assert workers.momentum(worker) == [1.5, 1.5]
    assert (workers.momentum(0), workers.momentum(3), workers.states.skipped) == ([1.0, 1.0], None, 0)
    assert given["optimizer"]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_a_state_is_taken_over_and_one_of_another_optimizer_refused() -> None:
    one, other = Workers(), Workers()
    one.step(2)
    one.states.skipped = 4
    other.states.restore(one.states.state())
    assert (other.momentum(2), other.states.skipped) == ([1.0, 1.0], 4)
    wrong = one.states.saved(2)
    for moments, why in (
        ({"exp_avg": torch.zeros(2)}, "exp_avg of another optimizer"),
        ({}, "nothing of another optimizer"),
        ({"momentum_buffer": torch.zeros(3)}, "momentum_buffer is no vector of 2"),
    ):
        with pytest.raises(ValueError, match=why):
            other.states.load(0, wrong | {"optimizer": moments})
