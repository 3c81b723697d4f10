"""Pages of vectors that are not needed for a while: the system has them back."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

import torch

LARGE = 1 << 22  # bytes from which on a vector's pages are worth asking the system for, each time anew
MADV_DONTNEED = 4  # of Linux' madvise


def give_back(vector: torch.Tensor) -> None:
    """Give the pages of a large vector back to the system until it is written; it is 0 then, or as it was."""
    first = -(-vector.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (vector.data_ptr() + vector.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if vector.device.type == "cpu" and vector.nbytes >= LARGE:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_DONTNEED)
