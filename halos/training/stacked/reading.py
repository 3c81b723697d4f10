"""The batches of several jobs, put together: many steps at a time, since each reading takes longer than its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from halos.data.batch import Batch
from halos.training import Job

AT_ONCE = 1 << 25  # bytes that are read at a time
Read: TypeAlias = "Callable[[int, int, int], torch.Tensor | Batch]"  # of a shard: the first sample, and how many


class Unread(Exception):
    """A job's samples cannot be read; the error is the cause."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


def numbers_in(batch: torch.Tensor | Batch) -> int:
    """Return how many numbers a sample has."""
    tensors = batch if isinstance(batch, Batch) else [batch]
    return sum(tensor[0].numel() for tensor in tensors)


def at_once(numbers: int, samples: int) -> int:
    """Return how many steps of one job, of so many samples with so many numbers each, may be read at a time."""
    return max(1, AT_ONCE // max(1, 8 * numbers * samples))


def read(jobs: Sequence[Job], first: int, steps: int, batch_size: int, micro: int, source: Read) -> list[Any]:
    """Return micro-batches of local steps first, first + 1, … of each job: [jobs, micro, …] each, one after another.

    Raises Unread for a job whose samples cannot be read.
    """
    several = []
    for job in jobs:
        try:
            several.append(source(job.shard, job.first_sample + first * batch_size, steps * batch_size))
        except Exception as error:
            raise Unread(job) from error
    if isinstance(several[0], Batch):
        return [Batch(*parts) for parts in zip(*(_micros(list(each), micro) for each in zip(*several)))]
    return list(_micros(several, micro))  # type: ignore[arg-type]


def _micros(several: list[torch.Tensor], micro: int) -> Sequence[torch.Tensor]:
    """Each job's samples [samples, …] → its micro-batches, [jobs, micro, …] each."""
    whole = torch.stack(several)  # [jobs, samples, …]
    return whole.view(len(whole), -1, micro, *whole.shape[2:]).unbind(1)
