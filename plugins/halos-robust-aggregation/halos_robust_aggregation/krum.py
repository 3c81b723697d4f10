"""Krum and multi-Krum: the payloads that lie nearest to many others (arXiv 1703.02757)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import torch

from halos import Cluster, Exchange, Layout, Params, Payload, require

from .gathering import SCALAR, Gathering, needs
from .vectors import Vector, average, distances


@dataclass(frozen=True)
class Krum(Gathering):
    """The payload with the lowest score: the sum of its squared distances to its M − f − 2 nearest others.

    Of equal scores the first worker's. Its guarantee against f bad workers needs M ≥ 2f + 3; of fewer members than
    f + 3, each looks at its nearest. Of the whole model, or of a fragment.
    """

    f: int = 1  # bad workers; M − f − 2 ≥ 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.f >= 0, "f", self.f, "zero or a positive number of workers")

    def connect(self, cluster: Cluster) -> None:
        needs(cluster, self.f + 3, "f", self.f)

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """Sharded, the M² inner products of everybody's part are summed as well, and decide."""
        gram = [Exchange(SCALAR * members**2)] if self.sharded else []
        return [*super().exchanges(nbytes, layout, members), *gram]

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        return Params.combine(self._chosen, *[payload.value for payload in payloads]), None

    def _chosen(self, *flats: Vector) -> Vector:
        lowest = scores(flats, self.f).argsort(stable=True)[: self._count(len(flats))]
        return average([flats[index] for index in sorted(lowest.tolist())])

    def _count(self, members: int) -> int:
        return 1


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The mean of the m payloads with the lowest scores of Krum."""

    m: Optional[int] = None  # payloads that are averaged; null: M − f

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.m is None or self.m >= 1, "m", self.m, "a positive number of workers, or null")

    def connect(self, cluster: Cluster) -> None:
        super().connect(cluster)
        if self.m is not None:
            needs(cluster, self.m, "m", self.m)

    def _count(self, members: int) -> int:
        return max(1, members - self.f if self.m is None else self.m)


def scores(flats: Sequence[Vector], f: int) -> torch.Tensor:
    """Return for each the sum of squared distances to its M − f − 2 nearest others, at least one, float64 [members]."""
    squared = torch.stack([distances(flats, flat) for flat in flats]) ** 2  # [members, members]
    nearest = squared.sort(dim=1).values[:, 1:]  # without itself
    return nearest[:, : max(1, len(flats) - f - 2)].sum(dim=1)
