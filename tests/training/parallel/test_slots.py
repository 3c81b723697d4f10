"""Slots: vectors that a forked process sees, and places that are used again once nobody looks at them."""

from __future__ import annotations

import gc
import os

import pytest
import torch

from halos.training.parallel.slots import FIRST, Slots


def test_what_one_process_writes_another_reads_in_slots_made_before_and_after_it_was_forked() -> None:
    slots = Slots(3, torch.float32)
    before = slots.new()
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        numbers = os.read(asked, 2)
        for number in numbers:
            slots.at(number).mul_(2.0)
        os.write(answer, b"!")
        os._exit(0)
    several = [slots.new() for _ in range(3 * FIRST)]  # the file has grown twice since
    for slot in (before, several[-1]):
        slot.vector.copy_(torch.tensor([1.0, 2.0, 3.0]) + slot.number)
    os.write(ask, bytes([before.number, several[-1].number]))
    os.read(answered, 1)
    os.waitpid(child, 0)
    for slot in (before, several[-1]):
        assert slot.vector.tolist() == [2.0 * (number + slot.number) for number in (1.0, 2.0, 3.0)]


def test_a_slot_is_free_when_the_last_tensor_in_it_is_gone() -> None:
    slots = Slots(4, torch.float32)
    slot, other = slots.new(), slots.new()
    assert (slot.number, other.number) == (0, 1)
    part = slot.vector[2:].view(2)
    del slot
    gc.collect()
    assert slots.new().number == 2  # a part of it is still looked at
    del part
    gc.collect()
    assert slots.new().number == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_slot_is_found_by_the_vector_or_its_beginning(dtype: torch.dtype) -> None:
    slots = Slots(5000, dtype)  # more than a page, and no multiple of it
    several = [slots.new() for _ in range(4)]
    assert [slot.vector.dtype for slot in several] == [dtype] * 4
    for value, slot in enumerate(several):
        slot.vector.fill_(value)
    for value, slot in enumerate(several):
        assert slot.vector.eq(value).all() and len(slot.vector) == 5000
        assert slots.holding(slot.vector) == slots.holding(slot.vector[:10]) == slot.number
        assert slots.holding(slot.vector[10:]) is None
    assert slots.holding(torch.zeros(5000)) is None


def test_vectors_outlive_the_slots() -> None:
    slots = Slots(2, torch.float32)
    vector = slots.new().vector.fill_(7.0)
    slots.close()
    slots.close()
    del slots
    gc.collect()
    assert vector.tolist() == [7.0, 7.0]
