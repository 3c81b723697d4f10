"""Inner states on their way: the same on the other side, bit for bit, and read where they lie."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from halos.testing.witness import fingerprint
from halos.training.inner_states import WorkerState, moments_of
from halos.training.options import OptimizerOptions, TrainOptions
from halos.training.parallel.inner import Inner, packed, unpack, written
from halos.training.parallel.slots import Slots
from halos.training.trainer import Trainer


class Net(torch.nn.Module):
    """Six numbers, of which weight decay applies to four; they are drawn towards the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        return ((self.weight @ batch[0, :2].float() + self.bias) ** 2).sum()


def trainer(**optimizer: Any) -> Trainer:
    return Trainer(Net(), TrainOptions(batch_size=1, optimizer=OptimizerOptions(**optimizer)), torch.device("cpu"))


def trained(one: Trainer, steps: int) -> WorkerState:
    """The state of worker 0 after so many steps."""
    batches = (torch.tensor([[1.0, 2.0]]) for _ in range(steps))
    one.train(0, one.initial(), steps, 0, batches, 0.0)
    return one.states.of(0)


def content(state: WorkerState) -> Any:
    return fingerprint([state.optimizer.state_dict()["state"], state.scaler.state_dict(), state.kept])


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        ({"name": "adamw"}, ["exp_avg", "exp_avg_sq"]),
        ({"name": "sgd", "momentum": 0.9}, ["momentum_buffer"]),
        ({"name": "sgd"}, []),
    ],
)
def test_a_state_is_the_same_on_the_other_side_and_lies_in_slots(optimizer: dict[str, Any], names: list[str]) -> None:
    one, other, slots = trainer(**optimizer), trainer(**optimizer), Slots(6, torch.float32)
    state = trained(one, 3)
    before = content(state)
    inner: Inner = pickle.loads(pickle.dumps(packed(state, slots)))
    assert content(state) == before and list(inner.moments) == moments_of(one.options.optimizer) == names
    assert packed(state, slots).moments == inner.moments  # they stay there
    copy = other.states.new()
    unpack(inner, {name: slots.at(number) for name, number in inner.moments.items()}, copy)
    assert content(copy) == before
    assert all(slots.holding(slots.at(number)) == number for number in inner.moments.values())
    other.states.give(0, copy)
    batches = [torch.tensor([[1.0, 2.0]])]
    for each in (one, other):
        each.train(0, each.initial(), 1, 3, iter(batches), 0.0, 1)
    assert content(one.states.of(0)) == content(other.states.of(0)) != before


def test_a_first_state_is_written_where_it_is_wanted() -> None:
    one, slots = trainer(name="adamw"), Slots(6, torch.float32)
    state = trained(one, 2)
    places = {name: slots.new() for name in moments_of(one.options.optimizer)}
    inner = written(state, {name: slot.number for name, slot in places.items()}, slots)
    assert inner.counts == {"step": 2.0} and inner.kept["seen"] is not None and inner.kept["seen"].tolist() == [2.0]
    for name, slot in places.items():
        halves = [kept[name] for kept in state.optimizer.state.values()]
        assert torch.equal(torch.cat(halves), slot.vector) and slot.vector.abs().sum() > 0
