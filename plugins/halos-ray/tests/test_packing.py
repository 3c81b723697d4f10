"""What is packed comes back the same; only a copy may be written to."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
import torch
from halos_ray.packing import copied, packed, unpacked

VALUE = {
    "state": {0: {"step": torch.tensor(3.0), "m": torch.tensor([1.0, -2.0])}},
    "half": torch.tensor([[0.5], [1.5]], dtype=torch.bfloat16),
    "mask": [torch.tensor([True, False]), None, torch.zeros(0)],
    "lr": 0.1,
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return all(map(same, one, other)) if isinstance(one, list) else one == other


@pytest.mark.parametrize("back", [unpacked, copied])
def test_values_come_back_as_they_were_without_a_word_and_from_memory_that_cannot_be_written(back: Any) -> None:
    buffers: list[Any] = []
    data = pickle.dumps(packed(VALUE), protocol=5, buffer_callback=buffers.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = back(pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers]))
    assert same(VALUE, found)


def test_only_a_copy_lies_elsewhere() -> None:
    tensor = torch.tensor([1.0, 2.0])
    given = packed({"m": tensor})
    copied(given)["m"].zero_()
    assert tensor.tolist() == [1.0, 2.0]
    assert unpacked(given)["m"].data_ptr() == tensor.data_ptr()
