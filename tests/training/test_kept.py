"""Buffers in and out of a module: what differs, who shares it, what stands for several."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from halos.errors import ConfigError
from halos.training.kept import Kept

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A count, a mean, a flag, and a cache that is there only after the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.tensor([1.0, 2.0]))
        self.register_buffer("table", torch.arange(3).expand(2, 3), persistent=False)
        self.register_buffer("cache", None)
        self.alias = self.mean


def test_only_what_differs_is_taken_and_all_is_put_back() -> None:
    module = Counting()
    kept = Kept(module)
    assert kept.take() == {}
    module.count += 3
    module.mean.mul_(2)
    module.cache = torch.ones(2)
    state = kept.take()
    assert sorted(state) == ["cache", "count", "mean"]
    kept.put({})
    assert (int(module.count), module.mean.tolist(), module.cache) == (0, [1.0, 2.0], None)
    kept.put(state)
    assert (int(module.count), module.mean.tolist(), module.cache.tolist()) == (3, [2.0, 4.0], [1.0, 1.0])
    assert module.alias is module.mean, "whoever holds the buffer sees it change"
    module.mean.zero_()
    assert state["mean"] is not None and state["mean"].tolist() == [2.0, 4.0], "a copy"


def test_a_buffer_may_change_its_shape_and_an_expanded_one_can_be_written() -> None:
    module = Counting()
    kept = Kept(module)
    module.mean = torch.zeros(5)
    state = kept.take()
    kept.put({})
    assert module.mean.tolist() == [1.0, 2.0]
    kept.put(state)
    assert module.mean.tolist() == [0.0] * 5
    module.table[0, 0] = 7  # of the expanded one, this would write both rows
    kept.put({})
    assert module.table.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_of_several_workers_fractions_are_averaged_and_whole_numbers_are_the_first_ones() -> None:
    kept = Kept(Counting())
    one = {"count": torch.tensor(5), "mean": torch.tensor([3.0, 0.0])}
    other = {"count": torch.tensor(9)}  # whose mean is still as built
    mean = kept.mean([one, other])
    assert mean["count"] is not None and int(mean["count"]) == 5
    assert mean["mean"] is not None and mean["mean"].tolist() == [2.0, 1.0]
    assert kept.mean([]) == {} == kept.mean([{}, {}])


def test_what_is_frozen_must_stay_as_it_is() -> None:
    module = nn.Linear(2, 1)
    module.weight.requires_grad_(False)
    kept = Kept(module)
    with torch.no_grad():
        module.weight.mul_(0.9)
    with pytest.raises(ConfigError, match=r"^model: changes weight, which is frozen; make it a buffer"):
        kept.take()


def test_a_saved_state_of_another_module_is_refused() -> None:
    kept = Kept(Counting())
    assert kept.checked({"cache": None, "count": torch.tensor(1)}, CPU) == {"cache": None, "count": torch.tensor(1)}
    for bad in ({"other": torch.zeros(1)}, {"mean": 3.0}, {"mean": torch.zeros(2).to_sparse()}):
        with pytest.raises(ValueError, match="is no buffer"):
            kept.checked(bad, CPU)
