"""Averages of several differences: plain, or of norms and directions apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from halos import Params

CANCELLED = 1e-12  # below it a mean of unit vectors is what rounding left of it, and no direction


def average(deltas: Sequence[Params], weights: Sequence[float], averaging: str, plain: Sequence[str]) -> Params:
    """The weighted mean of several differences of one fragment; tensor by tensor if it is radial-directional.

    Then a tensor gets (weighted mean of norms) · (weighted mean of unit vectors, made a unit vector again), a zero
    vector having no direction; those with one of `plain` in their names get the mean nevertheless.
    """
    mean = sum(weights) / len(weights)
    factors = [weight / mean for weight in weights]  # exactly 1 where all weigh the same

    def combined(*flats: torch.Tensor) -> torch.Tensor:
        total = weighted_mean(flats, factors)
        if averaging == "radial_directional":
            layout = deltas[0].layout
            for name in layout.shapes:
                if not any(word in name for word in plain):
                    piece = layout.slice_of(name)
                    total[piece] = radial_directional([flat[piece] for flat in flats], factors)
        return total

    return Params.combine(combined, *deltas)


def weighted_mean(vectors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """Of factors that are 1 on average."""
    total = vectors[0] * factors[0]
    for vector, factor in zip(vectors[1:], factors[1:]):
        total.add_(vector, alpha=factor)
    return total.div_(len(vectors))


def radial_directional(vectors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """(Weighted mean of norms) · (weighted mean of unit vectors, normalised); zero where these cancel."""
    norms = [torch.linalg.vector_norm(vector) for vector in vectors]
    direction = weighted_mean(
        [vector / torch.where(norm > 0, norm, 1) for vector, norm in zip(vectors, norms)], factors
    )
    length = torch.linalg.vector_norm(direction)
    return weighted_mean(norms, factors) * direction / torch.where(length < CANCELLED, math.inf, length)
