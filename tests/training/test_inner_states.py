"""Inner states: what they hold, and that one that only stands in leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos.training.inner_states import InnerStates, moments_of
from halos.training.kept import Kept
from halos.training.options import OptimizerOptions, TrainOptions


class Workers:
    """Two numbers, and whoever steps along (1, 1): with momentum 0.5 it is 1 after one step, 1.5 after two."""

    def __init__(self) -> None:
        self.vector = torch.nn.Parameter(torch.zeros(2))
        self.vector.grad = torch.ones(2)
        options = TrainOptions(optimizer=OptimizerOptions(name="sgd", momentum=0.5))
        self.states = InnerStates(self.optimizer, options, Kept(torch.nn.Linear(1, 1)), torch.device("cpu"))

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.vector], lr=0.1, momentum=0.5)

    def step(self, worker: int) -> None:
        self.states.of(worker).optimizer.step()

    def momentum(self, worker: int) -> Any:
        state = self.states.saved(worker)["optimizer"]["state"]
        return state[0]["momentum_buffer"].tolist() if state else None


def test_plain_descent_keeps_nothing_and_adamw_two_vectors() -> None:
    assert moments_of(OptimizerOptions(name="sgd")) == []
    assert moments_of(OptimizerOptions(name="sgd", momentum=0.1)) == ["momentum_buffer"]
    assert moments_of(OptimizerOptions()) == ["exp_avg", "exp_avg_sq"]


def test_each_worker_has_its_own_and_one_that_is_forgotten_begins_anew() -> None:
    workers = Workers()
    assert workers.states.known(0) is None and workers.momentum(0) is None
    for worker in (0, 0, 1):
        workers.step(worker)
    assert [workers.momentum(worker) for worker in (0, 1)] == [[1.5, 1.5], [1.0, 1.0]]
    workers.states.forget(0)
    assert workers.states.known(0) is None and workers.momentum(0) is None


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
    assert given["optimizer"]["state"][0]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_a_state_is_taken_over_and_one_of_another_optimizer_refused() -> None:
    one, other = Workers(), Workers()
    one.step(2)
    one.states.skipped = 4
    other.states.restore(one.states.state())
    assert (other.momentum(2), other.states.skipped) == ([1.0, 1.0], 4)
    wrong = one.states.saved(2)
    wrong["optimizer"]["state"] = {0: {"exp_avg": torch.zeros(2)}}
    with pytest.raises(ValueError, match="exp_avg of another optimizer"):
        other.states.load(0, wrong)
