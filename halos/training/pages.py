"""Pages that large vectors lie in: the system has them back when nobody needs what is there."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

import torch

LARGE = 1 << 22  # bytes from which on a vector's pages are worth asking the system for, each time anew
LARGEST = 1 << 25  # that the C library ever takes from its heap
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MADV_DONTNEED = 4  # of Linux' madvise


def own_pages(vector: torch.Tensor) -> None:
    """From now on, let all in this process that is as large as `vector`, if that is large, lie in pages of its own.

    The C library takes such from its heap once it has seen one freed, and in the holes between those that stay nothing
    else fits. Not where a model is trained: large activations would then be asked of the system at each step, which
    takes half as long again.
    """
    if vector.device.type == "cpu" and LARGE <= vector.nbytes <= LARGEST:
        with suppress(OSError, AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, vector.nbytes)
            library.mallopt(M_TRIM_THRESHOLD, 2 * vector.nbytes)  # as it would set it itself


def give_back(vector: torch.Tensor) -> None:
    """Give the pages of a large vector back to the system until it is written; it is 0 then, or as it was."""
    first = -(-vector.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (vector.data_ptr() + vector.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if vector.device.type == "cpu" and vector.nbytes >= LARGE:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_DONTNEED)
