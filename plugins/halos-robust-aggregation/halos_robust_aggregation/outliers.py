"""EDiT's outlier detector: a worker's norms against their own moving average (arXiv 2412.07210)."""

from __future__ import annotations

import math
from typing import NamedTuple


class Detector(NamedTuple):
    """What is known of a worker's norms so far; a value, like any state. Everything begins at 0, averages as well."""

    mean: float = 0.0
    squared: float = 0.0  # M2, the moving average of squared deviations
    norms: int = 0  # how many so far, without outliers
    latest: tuple[float, ...] = ()  # the latest z, one for each norm after the warm-up; in it they count as 0

    def z(self, norm: float) -> float:
        """Return (x − mean) / √M2; 0 after nothing but zeros: who begins late is no outlier for ever."""
        away = norm - self.mean
        if self.squared > 0.0:
            return away / math.sqrt(self.squared)
        return 0.0 if math.isfinite(away) else math.inf

    def finds(self, norm: float, warmup: int, threshold: float) -> bool:
        """Whether it is an outlier: z > 3 · max(1, sd of the last `warmup` z), once there were so many norms."""
        if self.norms < warmup:
            return False
        mean = sum(self.latest) / warmup
        variance = sum([z * z for z in self.latest]) / warmup - mean * mean
        return self.z(norm) > threshold * max(1.0, math.sqrt(max(0.0, variance)))

    def after(self, norm: float, warmup: int, a: float) -> Detector:
        """Return it with one norm more: mean ← mean + A δ, M2 ← (1 − A)(M2 + A δ (x − mean)), δ = x − old mean."""
        delta = norm - self.mean
        mean = self.mean + a * delta
        squared = (1.0 - a) * (self.squared + a * delta * (norm - mean))
        latest = (*self.latest, self.z(norm))[-warmup:] if self.norms >= warmup else ()
        return Detector(mean, squared, self.norms + 1, latest)
