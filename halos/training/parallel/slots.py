"""Vectors in memory that processes share, each in a slot: free again when the last tensor that lies in it is gone."""

from __future__ import annotations

import ctypes
import heapq
import mmap
import os
import tempfile
import weakref
from typing import NamedTuple, Optional

import torch

from halos.errors import UserError
from halos.training.pages import LARGE

PAGE = mmap.ALLOCATIONGRANULARITY
FIRST = 16  # slots of the first segment; each one after it has as many as there were before


class Slot(NamedTuple):
    """A place, by number, and the vector that lies there."""

    number: int
    vector: torch.Tensor  # [P]


class Slots:
    """Slots of one size in a file without a name. One process makes them; all that were forked from it see them.

    The file is sparse: a slot takes memory once it is needed, and, if it is large, until it is free again.
    """

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        """Of vectors [size] of that type."""
        self._size = size
        self._dtype = dtype
        self._stride = -(-size * dtype.itemsize // PAGE) * PAGE  # bytes
        self._file = _nameless()
        self._segments: list[mmap.mmap] = []  # as far as this process has needed them
        self._count = 0  # slots there are, in the process that makes them
        self._free: list[int] = []  # a heap: the first ones are used most
        self._reserved: set[int] = set()  # slots that have memory
        self._starts: dict[int, int] = {}  # address → slot

    @property
    def large(self) -> bool:
        """Whether a vector is so large that its memory is not kept for the next one."""
        return self._stride >= LARGE

    def new(self) -> Slot:
        """Return a free slot; what is in its vector is anything. Raises UserError if there is no memory for it."""
        try:
            if not self._free:
                more = max(FIRST, self._count)
                os.ftruncate(self._file, (self._count + more) * self._stride)
                self._free.extend(range(self._count, self._count + more))  # sorted, and so a heap
                self._count += more
            self._reserve(self._free[0])
        except OSError as error:
            raise UserError(
                f"executor: parallel needs {self._stride / 2**20:.1f} MiB of shared memory for one vector more, beside"
                f" {len(self._starts)} of that size, and cannot have them ({error.strerror}); take fewer workers or a"
                " smaller model, or executor.name=inline, which shares none"
            ) from None
        index = heapq.heappop(self._free)
        place = self._place(index)
        vector = self._vector(place)
        address = vector.data_ptr()
        self._starts[address] = index
        weakref.finalize(place, self._let_go, address).atexit = False
        return Slot(index, vector)

    def holding(self, tensor: torch.Tensor) -> Optional[int]:
        """Return the slot at whose beginning a tensor lies; None if it lies elsewhere."""
        return self._starts.get(tensor.data_ptr())

    def at(self, index: int) -> torch.Tensor:
        """Return the vector of a slot that another process has made; it does not keep the slot from being used anew."""
        return self._vector(self._place(index))

    def close(self) -> None:
        """Make no more slots. Vectors stay what they are."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _reserve(self, index: int) -> None:
        """Let a slot have memory. To write where there is none to be had ends a process, without a word."""
        if index not in self._reserved and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, index * self._stride, self._stride)
        self._reserved.add(index)

    def _let_go(self, address: int) -> None:
        index = self._starts.pop(address)
        heapq.heappush(self._free, index)
        if self.large and hasattr(mmap, "MADV_REMOVE"):  # Linux
            segment, first = _segment_of(index)
            self._segments[segment].madvise(mmap.MADV_REMOVE, (index - first) * self._stride, self._stride)
            self._reserved.remove(index)

    def _place(self, index: int) -> ctypes.Array[ctypes.c_char]:
        """The bytes of a slot."""
        segment, first = _segment_of(index)
        for number in range(len(self._segments), segment + 1):
            before, there = sum(map(_slots_of, range(number))), _slots_of(number)
            self._segments.append(mmap.mmap(self._file, there * self._stride, offset=before * self._stride))
        return (ctypes.c_char * self._stride).from_buffer(self._segments[segment], (index - first) * self._stride)

    def _vector(self, place: ctypes.Array[ctypes.c_char]) -> torch.Tensor:
        return torch.frombuffer(place, dtype=self._dtype, count=self._size)


def _segment_of(index: int) -> tuple[int, int]:
    """In which segment a slot is, and which slot is the first of that."""
    segment, first = 0, 0
    while index >= first + _slots_of(segment):
        first += _slots_of(segment)
        segment += 1
    return segment, first


def _slots_of(segment: int) -> int:
    """How many slots a segment has: as many as all before it."""
    return FIRST << max(0, segment - 1)


def _nameless() -> int:
    """An empty file that no other process can open, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("halos")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
