"""Inner states on their way: the same on the other side, bit for bit, and read where they lie."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from halos.testing.witness import fingerprint
from halos.training.inner_states import WorkerState
from halos.training.optimizers import SGD, AdamW, InnerOptimizer
from halos.training.options import TrainOptions
from halos.training.parallel.inner import Inner, Places, packed, unpack, written
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


def trainer(optimizer: InnerOptimizer) -> Trainer:
    return Trainer(Net(), TrainOptions(batch_size=1, optimizer=optimizer), torch.device("cpu"))


def trained(one: Trainer, steps: int) -> WorkerState:
    """The state of worker 0 after so many steps."""
    batches = (torch.tensor([[1.0, 2.0]]) for _ in range(steps))
    one.train(0, one.initial(), steps, 0, batches, 0.0)
    return one.states.of(0)


def content(state: WorkerState) -> Any:
    return fingerprint([state.moments, state.scaler.state_dict(), state.kept])


def places_of(one: Trainer) -> Places:
    return Places(one.options.optimizer.init(one.layout, torch.device("meta")), one.layout.size)


@pytest.mark.parametrize(("optimizer", "count"), [(AdamW(), 2), (SGD(momentum=0.9), 1), (SGD(), 0)])
def test_a_state_is_the_same_on_the_other_side_and_lies_in_slots(optimizer: InnerOptimizer, count: int) -> None:
    one, other, slots = trainer(optimizer), trainer(optimizer), Slots(6, torch.float32)
    state, places = trained(one, 3), places_of(one)
    before = content(state)
    inner: Inner = pickle.loads(pickle.dumps(packed(state, places, slots)))
    assert content(state) == before and inner.slots is not None and len(inner.slots) == count
    assert packed(state, places, slots).slots == inner.slots  # they stay there
    copy = other.states.new()
    unpack(inner, places, [slots.at(number) for number in inner.slots], copy)
    assert content(copy) == before
    assert all(slots.holding(slots.at(number)) == number for number in inner.slots)
    other.states.give(0, copy)
    batches = [torch.tensor([[1.0, 2.0]])]
    for each in (one, other):
        each.train(0, each.initial(), 1, 3, iter(batches), 0.0, 1)
    assert content(one.states.of(0)) == content(other.states.of(0)) != before


def test_a_first_state_is_written_where_it_is_wanted() -> None:
    one, slots = trainer(AdamW()), Slots(6, torch.float32)
    state = trained(one, 2)
    room = [slots.new() for _ in range(2)]
    inner = written(state, places_of(one), [slot.number for slot in room], slots)
    assert inner.numbers == {"step": 2.0} and inner.kept["seen"] is not None and inner.kept["seen"].tolist() == [2.0]
    assert state.moments is not None
    for name, slot in zip(("exp_avg", "exp_avg_sq"), room):
        assert torch.equal(state.moments[name], slot.vector) and slot.vector.abs().sum() > 0


def test_nothing_is_told_of_moments_where_nobody_wants_them_or_there_are_none() -> None:
    one, slots = trainer(AdamW()), Slots(6, torch.float32)
    places, new = places_of(one), one.states.new()
    assert packed(new, places, slots).slots is None
    assert written(trained(one, 1), places, None, slots).slots is None
    before = content(one.states.of(0))
    unpack(written(one.states.of(0), places, None, slots), places, [], one.states.of(0))
    assert content(one.states.of(0)) == before


def test_vectors_share_slots_in_which_they_find_room() -> None:
    """4 and 2 numbers in one slot of 6, the other 2 in another; a number in none."""
    like = {"step": torch.tensor(2), "a": torch.full((2,), 1.0), "b": torch.full((4,), 2.0), "c": torch.full((2,), 3.0)}
    places, vectors = Places(like, 6), [torch.zeros(6), torch.zeros(6)]
    assert places.count == 2
    there = places.moved(like, vectors)
    assert [vector.tolist() for vector in vectors] == [[2.0] * 4 + [1.0] * 2, [3.0] * 2 + [0.0] * 4]
    assert (
        fingerprint(there) == fingerprint({name: like[name] for name in there}) and there["step"].dtype == torch.int64
    )
