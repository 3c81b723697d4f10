"""Batches of several jobs, read many steps at a time."""

from __future__ import annotations

import pytest
import torch

from halos.data.batch import Batch
from halos.training import Job
from halos.training.stacked.reading import Unread, at_once, numbers_in, read
from halos.values.params import Layout, Params

START = Params(Layout({"w": (1,)}), torch.zeros(1))


def job(id: int, shard: int, first: int) -> Job:
    return Job(id, id, START, 3, shard, first, first + 12, 0, 0.0)


def samples(shard: int, first: int, count: int) -> torch.Tensor:
    return 100 * shard + torch.arange(first, first + count)[:, None]


def test_micro_batches_come_in_the_order_of_each_job() -> None:
    """Steps of four samples in two micro-batches; from the second of three steps on."""
    batches = read([job(0, 0, 0), job(1, 1, 50)], 1, 2, 4, 2, samples)
    assert [batch[:, :, 0].tolist() for batch in batches] == [
        [[4, 5], [154, 155]],
        [[6, 7], [156, 157]],
        [[8, 9], [158, 159]],
        [[10, 11], [160, 161]],
    ]


def test_samples_of_several_tensors_stay_that() -> None:
    def source(shard: int, first: int, count: int) -> Batch:
        return Batch(samples(shard, first, count), torch.ones(count, 2, 2))

    first, second = read([job(0, 0, 0), job(1, 1, 50)], 0, 1, 4, 2, source)
    assert isinstance(first, Batch) and [tensor.shape for tensor in first] == [(2, 2, 1), (2, 2, 2, 2)]
    assert next(iter(second))[:, :, 0].tolist() == [[2, 3], [152, 153]]


def test_whose_samples_cannot_be_read_is_said() -> None:
    def source(shard: int, first: int, count: int) -> torch.Tensor:
        if shard == 1:
            raise OSError("gone")
        return samples(shard, first, count)

    with pytest.raises(Unread) as raised:
        read([job(0, 0, 0), job(7, 1, 0)], 0, 1, 4, 4, source)
    assert raised.value.job.id == 7 and isinstance(raised.value.__cause__, OSError)


def test_how_many_steps_are_read_goes_by_their_bytes() -> None:
    assert numbers_in(torch.zeros(5, 65)) == 65 and numbers_in(Batch(torch.zeros(5, 3, 8, 8), torch.zeros(5))) == 193
    assert at_once(64, 8) == 2**25 // (8 * 64 * 8) == 8192
    assert at_once(10**9, 8) == 1
