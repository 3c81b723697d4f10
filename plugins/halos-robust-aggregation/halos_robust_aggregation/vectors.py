"""Arithmetic on the flat vectors of several payloads, tensor by tensor or of the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from halos import Layout, require

Vector: TypeAlias = "torch.Tensor"  # [numbers]
PER = ("tensor", "model")


def check_per(key: str, per: str) -> None:
    """Raise ConfigError for `key` unless `per` is one of PER."""
    require(per in PER, key, per, f"one of {', '.join(PER)}")


def units(layout: Layout, per: str) -> list[slice]:
    """Return the slices that a rule looks at one by one: each `tensor`, or all of the `model` (of a fragment of it)."""
    return [slice(0, layout.size)] if per == "model" else [layout.slice_of(name) for name in layout.shapes]


def average(vectors: Sequence[Vector]) -> Vector:
    """Return the mean, summed in order, as halos does it."""
    return total(vectors).div_(len(vectors))


def total(vectors: Sequence[Vector]) -> Vector:
    """Return the sum, in order."""
    found = vectors[0].clone()
    for vector in vectors[1:]:
        found.add_(vector)
    return found


def weighted(weights: torch.Tensor, vectors: Sequence[Vector]) -> Vector:
    """Return Σ w x. `weights` are float64, one for each vector."""
    return total([weight * vector for weight, vector in zip(weights, vectors)])


def lengths(vectors: Sequence[Vector]) -> torch.Tensor:
    """Return the norm of each, float64 [vectors]."""
    return torch.stack([torch.linalg.vector_norm(vector, dtype=torch.float64) for vector in vectors])


def distances(vectors: Sequence[Vector], point: Vector) -> torch.Tensor:
    """Return how far each is from `point`, float64 [vectors]."""
    return lengths([vector - point for vector in vectors])


def middle(numbers: torch.Tensor) -> torch.Tensor:
    """Return the median along the first dimension; of an even number, the mean of the middle two."""
    ordered, count = numbers.sort(dim=0).values, len(numbers)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
