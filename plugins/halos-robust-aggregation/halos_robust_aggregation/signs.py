"""Rules that vote on each coordinate's sign: sign majority, and one like TIES."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

import torch

from halos import Exchange, Layout, Params, Payload, positive, require

from .gathering import SCALAR
from .vectors import Vector, total, units


@dataclass(frozen=True)
class SignMajority:
    """scale · sign(Σ sign Δ_i) in each coordinate, 0 in a tie (signSGD with majority vote, arXiv 1810.05291)."""

    scale: Optional[float] = None  # of each number; null: the mean magnitude in its tensor, over all payloads (ours)
    weighs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.scale is None or positive(self.scale), "scale", self.scale, "a positive number, or null")

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """Counts are summed, whatever the codec; and the tensors' magnitudes, unless a scale is given."""
        scales = [] if self.scale is not None else [Exchange(SCALAR * len(layout.shapes))]
        return [Exchange(counts(layout, members)), *scales]

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        several = [payload.value for payload in payloads]
        layout = several[0].layout

        def majority(*flats: Vector) -> Vector:
            found = total([flat.sign() for flat in flats]).sign()
            for unit in units(layout, "tensor"):
                magnitudes = torch.stack([flat[unit].abs().mean() for flat in flats])
                found[unit] *= magnitudes.mean() if self.scale is None else self.scale
            return found

        return Params.combine(majority, *several), None


@dataclass(frozen=True)
class Ties:
    """In each coordinate, the mean of those that have the elected sign (after TIES-merging, arXiv 2306.01708).

    Elected is the sign of the sum, or that of most, where 0 counts as positive; as it does in the mean.
    """

    elect: str = "sum"  # `sum`, or `count`
    weighs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.elect in ("sum", "count"), "elect", self.elect, "one of sum, count")

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """What elects; then the sum of those who agree, and how many these are."""
        count = counts(layout, members)
        return [Exchange(nbytes if self.elect == "sum" else count), Exchange(nbytes), Exchange(count)]

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        return Params.combine(self._agreeing, *[payload.value for payload in payloads]), None

    def _agreeing(self, *flats: Vector) -> Vector:
        ballots = flats if self.elect == "sum" else [signs(flat) for flat in flats]
        elected = signs(total(ballots))
        agree = [signs(flat) == elected for flat in flats]
        summed = total([torch.where(agrees, flat, 0.0) for agrees, flat in zip(agree, flats)])
        return summed / total([agrees.to(summed.dtype) for agrees in agree]).clamp(min=1.0)


def signs(flat: Vector) -> Vector:
    """Return 1 or −1 for each number, 1 for zero."""
    return torch.where(flat < 0.0, -1.0, 1.0).to(flat.dtype)


def counts(layout: Layout, members: int) -> int:
    """Bytes of a number from −M to M for each parameter: ⌈log₂(2M + 1)⌉ bits."""
    return math.ceil(layout.size * math.ceil(math.log2(2 * members + 1)) / 8)
