"""The geometric median, which has the smallest sum of distances to all payloads, by Weiszfeld's iteration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from halos import Exchange, Layout, Params, Payload, require

from .gathering import SCALAR, Gathering
from .vectors import Vector, average, check_per, distances, units, weighted


@dataclass(frozen=True)
class GeometricMedian(Gathering):
    """z ← mean Δ; then again and again w_i = 1 / max(‖Δ_i − z‖, ε), z ← Σ w_i Δ_i / Σ w_i (RFA, arXiv 1912.13445).

    RoDiLoCo has 32 iterations and an ε of 1e-8, which are the defaults. The count is fixed.
    """

    iterations: int = 32
    eps: float = 1e-8  # ε, the shortest distance that counts
    per: str = "model"  # what distances are of: the `model` (or fragment), or each `tensor`

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.iterations <= 1000, "iterations", self.iterations, "from 1 to 1000")
        require(1e-30 <= self.eps <= 1e30, "eps", self.eps, "from 1e-30 to 1e30")
        check_per("per", self.per)

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """Sharded, the M² inner products of everybody's part are summed as well, and decide all weights."""
        gram = [Exchange(SCALAR * members**2 * len(units(layout, self.per)))] if self.sharded else []
        return [*super().exchanges(nbytes, layout, members), *gram]

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        several = [payload.value for payload in payloads]
        layout = several[0].layout

        def median(*flats: Vector) -> Vector:
            found = flats[0].clone()
            for unit in units(layout, self.per):
                found[unit] = weiszfeld([flat[unit] for flat in flats], self.iterations, self.eps)
            return found

        return Params.combine(median, *several), None


def weiszfeld(vectors: Sequence[Vector], iterations: int, eps: float) -> Vector:
    """Return the point that so many iterations reach from the mean."""
    z = average(vectors)
    for _ in range(iterations):
        w = 1.0 / distances(vectors, z).clamp(min=eps)
        z = weighted(w / w.sum(), vectors)
    return z
