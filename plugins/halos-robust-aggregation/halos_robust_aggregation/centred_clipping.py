"""Centred clipping: steps from the last aggregate towards each payload, of limited length (arXiv 2012.10333)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

import torch

from halos import Exchange, Layout, Params, Payload, mean, positive, require

from .gathering import SCALAR, Gathering
from .vectors import Vector, average, check_per, distances, middle, units


@dataclass(frozen=True)
class CentredClipping(Gathering):
    """v ← v + mean_i (Δ_i − v) · min(1, r / ‖Δ_i − v‖), some times over; v is the aggregate, and lives on.

    r = τ · median_i ‖Δ_i − v‖, anew in each iteration, as in RoDiLoCo; a fixed one is, as remembered, the original's.
    At first v is the mean. `iterated`: each iteration gathers everybody's distance and sums the clipped steps.
    """

    iterations: int = 3
    tau: float = 1.0  # τ, of the median distance
    radius: Optional[float] = None  # r, fixed (`.inf`: nothing is clipped); null: τ medians
    per: str = "model"  # what distances are of: the `model` (or fragment), or each `tensor`
    ways: ClassVar[tuple[str, ...]] = ("gather", "iterated")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.iterations <= 1000, "iterations", self.iterations, "from 1 to 1000")
        require(positive(self.tau), "tau", self.tau, "a positive number")
        require(self.radius is None or self.radius > 0.0, "radius", self.radius, "a positive number, or null")
        check_per("per", self.per)

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        if self.exchange == "gather":
            return [Exchange(nbytes, gathered=True)]
        distance = Exchange(SCALAR * len(units(layout, self.per)), gathered=True)
        return [distance, Exchange(nbytes)] * self.iterations

    def combine(self, payloads: Iterable[Payload], state: Optional[Params]) -> tuple[Params, Params]:
        several = [payload.value for payload in payloads]
        layout = several[0].layout

        def clipped(v: Vector, *flats: Vector) -> Vector:
            found = v.clone()
            for unit in units(layout, self.per):
                found[unit] = self._clipped(v[unit], [flat[unit] for flat in flats])
            return found

        v = Params.combine(clipped, mean(several) if state is None else state, *several)
        return v, v

    def _clipped(self, v: Vector, vectors: Sequence[Vector]) -> Vector:
        for _ in range(self.iterations):
            away = distances(vectors, v)
            r = self.tau * middle(away) if self.radius is None else torch.full_like(away[0], self.radius)
            shares = torch.where(away > r, r / away, 1.0)
            v = v + average([share * (vector - v) for share, vector in zip(shares, vectors)])
        return v
