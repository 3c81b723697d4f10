"""Values with tensors as Ray keeps them best: as arrays, which it hands out without copying them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch


class Packed(NamedTuple):
    """A tensor."""

    data: np.ndarray  # uint8 [bytes]
    dtype: torch.dtype
    shape: tuple[int, ...]


def packed(value: Any) -> Any:
    """Return the same with Packed for every tensor. Nothing is copied that is in the CPU's memory."""
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return Packed(data, value.dtype, tuple(value.shape))
    if isinstance(value, dict):
        return {key: packed(inner) for key, inner in value.items()}
    return [packed(inner) for inner in value] if isinstance(value, list) else value


def unpacked(value: Any) -> Any:
    """Return what was packed. Tensors are in the memory in which they were packed, and not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")  # that is what we say
        return _unpacked(value)


def _unpacked(value: Any) -> Any:
    if isinstance(value, Packed):
        if not value.data.size:
            return torch.empty(value.shape, dtype=value.dtype)
        return torch.from_numpy(value.data).view(value.dtype).reshape(value.shape)
    if isinstance(value, dict):
        return {key: _unpacked(inner) for key, inner in value.items()}
    return [_unpacked(inner) for inner in value] if isinstance(value, list) else value


def copied(value: Any) -> Any:
    """Return what was packed, its tensors copied: for whoever writes to them."""
    if isinstance(value, Packed):
        return _unpacked(value._replace(data=value.data.copy()))
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value
