"""EDiT's average: smaller differences weigh more, outliers nothing, and what is too long is clipped."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

import torch

from halos import Exchange, Layout, Params, Payload, positive, require

from .gathering import SCALAR
from .outliers import Detector
from .vectors import Vector, check_per, lengths, units

Detectors = Mapping[tuple[Hashable, int], Detector]  # by sender and unit
TINY = 1e-6  # added to a norm that is divided by


@dataclass(frozen=True)
class EDiT:
    """Δ̄ = Σ w_i Δ_i with w = softmax(−‖Δ_i‖ / T), for each unit (EDiT and A-EDiT, arXiv 2412.07210).

    An outlier's difference is taken as zero, and has no part in the softmax. With `by_steps` r (A-EDiT) the weights
    become (1 − r) w + r · steps_i / Σ steps, where a policy gives its workers' steps as relative weights; without any
    these are equal. Where all are outliers the unit is zero: whether there is an outer step then, is the policy's.
    """

    temperature: float = 1.0  # T, in units of the norms; `.inf`: equal weights
    scale_free: bool = False  # norms are divided by their mean first (ours)
    by_steps: float = 0.0  # r, the share of the weights that goes by relative weights; 0 to 1, A-EDiT's .5
    clip: Optional[float] = None  # c: what is longer becomes this long; null: nothing is clipped
    per: str = "tensor"  # what norms, weights and outliers are of: each `tensor`, or the `model` (or fragment)
    clip_per: str = "model"  # what is clipped: each `tensor`, or the `model` (or fragment)
    warmup: Optional[int] = 120  # collectives until there are outliers; null: there are none
    average: float = 0.02  # A, of the detector's moving averages
    threshold: float = 3.0  # so many deviations above its average, at least, is an outlier
    weighs: ClassVar[bool] = False  # a factor on a difference would change its norm

    def __post_init__(self) -> None:
        require(self.temperature >= 1e-12, "temperature", self.temperature, "1e-12 or more, or .inf")
        require(0.0 <= self.by_steps <= 1.0, "by_steps", self.by_steps, "in [0, 1]")
        require(self.clip is None or positive(self.clip), "clip", self.clip, "a positive number, or null")
        check_per("per", self.per)
        check_per("clip_per", self.clip_per)
        require(self.warmup is None or self.warmup >= 1, "warmup", self.warmup, "a positive number of them, or null")
        require(0.0 < self.average < 1.0, "average", self.average, "in (0, 1)")
        require(positive(self.threshold), "threshold", self.threshold, "a positive number")

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """Everybody's norms, and then the sum of what is weighed."""
        return [Exchange(SCALAR * len(units(layout, self.per)), gathered=True), Exchange(nbytes)]

    def combine(self, payloads: Iterable[Payload], state: Optional[Detectors]) -> tuple[Params, Detectors]:
        several, detectors = list(payloads), dict(state or {})
        layout = several[0].value.layout
        weights: list[list[float]] = []  # [units][members]
        for index, unit in enumerate(units(layout, self.per)):
            norms = [payload.value[(unit,)].norm() for payload in several]  # n_i
            outliers = [self._finds(detectors, (each.sender, index), n) for each, n in zip(several, norms)]
            weights.append(self._weights(norms, outliers, [payload.weight for payload in several]))

        def combined(*flats: Vector) -> Vector:
            found = torch.zeros_like(flats[0])
            for unit, among in zip(units(layout, self.per), weights):
                for weight, flat in zip(among, flats):
                    if weight != 0.0:  # an outlier may be infinite
                        found[unit].add_(flat[unit], alpha=weight)
            found.div_(len(flats))
            return found if self.clip is None else clipped(found, units(layout, self.clip_per), self.clip)

        return Params.combine(combined, *[payload.value for payload in several]), detectors

    def _finds(self, detectors: dict[tuple[Hashable, int], Detector], whose: tuple[Hashable, int], norm: float) -> bool:
        """Whether a norm is an outlier; if not, its detector knows it from now on."""
        if self.warmup is None:
            return False
        detector = detectors.get(whose, Detector())
        outlier = detector.finds(norm, self.warmup, self.threshold)
        if not outlier:
            detectors[whose] = detector.after(norm, self.warmup, self.average)
        return outlier

    def _weights(self, norms: Sequence[float], outliers: Sequence[bool], steps: Sequence[float]) -> list[float]:
        """Return everybody's weight, times their number: equal ones are exactly 1."""
        kept = [norm for norm, outlier in zip(norms, outliers) if not outlier]
        if not kept:
            return [0.0] * len(norms)
        scale = sum(kept) / len(kept) if self.scale_free else 1.0
        scale = (scale if scale > 0.0 else 1.0) * self.temperature
        soft = [0.0 if outlier else math.exp((min(kept) - norm) / scale) for norm, outlier in zip(norms, outliers)]
        members, softs, total, r = len(norms), sum(soft), sum(steps), self.by_steps
        return [
            0.0 if outlier else (1.0 - r) * (members * w / softs) + r * (members * s / total)
            for w, s, outlier in zip(soft, steps, outliers)
        ]


def clipped(flat: Vector, among: Sequence[slice], c: float) -> Vector:
    """Return Δ̄ · min(1, c / (‖Δ̄‖ + 1e-6)), for each of the slices."""
    shares = [(c / (lengths([flat[unit]])[0] + TINY)).clamp(max=1.0) for unit in among]
    return torch.cat([share * flat[unit] for share, unit in zip(shares, among)])
