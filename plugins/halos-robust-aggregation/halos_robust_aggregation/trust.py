"""Trust: directions weigh by how well their workers have agreed with earlier aggregates, as in RoDiLoCo's code."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Optional

import torch

from halos import Exchange, Layout, Params, Payload, require

from .geometric_median import GeometricMedian
from .vectors import Vector, lengths, middle, weighted


class Trusted(NamedTuple):
    """The last aggregate, and the workers' scores s, 0 at first."""

    aggregate: Params
    scores: Mapping[Hashable, float]


@dataclass(frozen=True)
class Trust:
    """s_i ← β s_i + (1 − β) cos(Δ_i, last aggregate); Σ softmax(s / T)_i · Δ_i / ‖Δ_i‖, as long as the median Δ.

    The first aggregate is the geometric median. That the sum, and not each direction, is made as long as the median
    is our reading.
    """

    decay: float = 0.9  # β, of the scores
    temperature: float = 0.1  # T
    weighs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0.0 <= self.decay < 1.0, "decay", self.decay, "in [0, 1)")
        require(1e-6 <= self.temperature <= 1e6, "temperature", self.temperature, "from 1e-6 to 1e6")

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        return [Exchange(nbytes, gathered=True)]

    def combine(self, payloads: Iterable[Payload], state: Optional[Trusted]) -> tuple[Params, Trusted]:
        several = list(payloads)
        if state is None:
            aggregate, _ = GeometricMedian().combine(several, None)
            return aggregate, Trusted(aggregate, {})
        scores = dict(state.scores)
        for sender, value, _ in several:
            scores[sender] = self.decay * scores.get(sender, 0.0) + (1.0 - self.decay) * cosine(value, state.aggregate)
        among = [scores[payload.sender] / self.temperature for payload in several]

        def directed(*flats: Vector) -> Vector:
            norms = lengths(flats)
            weights = torch.tensor(among, dtype=torch.float64).softmax(0).to(norms.device)
            direction = weighted(weights / norms.clamp(min=1e-30), flats)
            return direction * (middle(norms) / lengths([direction])[0].clamp(min=1e-30))

        aggregate = Params.combine(directed, *[payload.value for payload in several])
        return aggregate, Trusted(aggregate, scores)


def cosine(one: Params, other: Params) -> float:
    """Return the cosine of the angle between them; 0 if one is zero."""
    norms = one.norm() * other.norm()
    return one.dot(other) / norms if norms != 0.0 else 0.0
