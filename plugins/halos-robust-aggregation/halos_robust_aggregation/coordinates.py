"""Rules that look at each coordinate by itself: trimmed mean and median."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from halos import Cluster, Params, Payload, require

from .gathering import Gathering, needs
from .vectors import Vector, average, middle


@dataclass(frozen=True)
class TrimmedMean(Gathering):
    """In each coordinate, the mean of all but the b largest and the b smallest numbers (arXiv 1803.01498).

    Withstands up to b bad workers. With no more than 2b members, where faults take the others', it is the median.
    """

    b: int = 1  # how many are dropped at either end; M > 2b

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.b >= 0, "b", self.b, "zero or a positive number of workers")

    def connect(self, cluster: Cluster) -> None:
        needs(cluster, 2 * self.b + 1, "b", self.b)

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        return Params.combine(self._trimmed, *[payload.value for payload in payloads]), None

    def _trimmed(self, *flats: Vector) -> Vector:
        if self.b == 0:  # in order of worker: the mean, to the last bit
            return average(flats)
        if len(flats) <= 2 * self.b:
            return middle(torch.stack(flats))
        return average(torch.stack(flats).sort(dim=0).values[self.b : len(flats) - self.b].unbind())


@dataclass(frozen=True)
class Median(Gathering):
    """In each coordinate the median; the mean of the middle two if there is an even number (arXiv 1803.01498)."""

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        several = [payload.value for payload in payloads]
        return Params.combine(lambda *flats: middle(torch.stack(flats)), *several), None
