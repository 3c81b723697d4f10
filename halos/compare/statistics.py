"""Statistics over seeds: means, paired differences with an interval, ratios; nothing here knows what is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean, stdev


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds (√ Σ (x − mean)² / (n − 1)); NaN where there is none."""

    mean: float
    deviation: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of all that is known, which NaN is not."""
        known = [float(value) for value in values if not math.isnan(value)]
        if not known:
            return Spread(math.nan, math.nan, 0)
        return Spread(mean(known), stdev(known) if len(known) > 1 else math.nan, len(known))


@dataclass(frozen=True)
class Paired:
    """What the same seeds differ by: mean, sample standard deviation, and the 95 % interval of the mean.

    The interval is mean ± t · deviation / √n, t the 97.5 % quantile of Student's t with n − 1 degrees of freedom: right
    if differences are about normal over seeds. With one pair there is none: NaN.
    """

    mean: float
    deviation: float
    count: int
    low: float
    high: float

    @staticmethod
    def of(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
        """Ours minus theirs, of all seeds of which both are known."""
        return Paired.over([ours[seed] - theirs[seed] for seed in ours if seed in theirs])

    @staticmethod
    def over(differences: Sequence[float]) -> Paired:
        """Of differences; NaN is none."""
        spread = Spread.of(differences)
        half = math.nan
        if spread.count > 1:
            half = t_quantile(spread.count - 1) * spread.deviation / math.sqrt(spread.count)
        return Paired(spread.mean, spread.deviation, spread.count, spread.mean - half, spread.mean + half)


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
    """How many times as large ours are, seed by seed: the geometric mean, and its 95 % interval, of the logarithms.

    So that the ratio of A to B is one over that of B to A. Only positive numbers have one. `deviation` is that of the
    logarithms.
    """
    logs = [
        math.log(ours[seed] / theirs[seed])
        for seed in ours
        if seed in theirs and ours[seed] > 0.0 and theirs[seed] > 0.0
    ]
    found = Paired.over(logs)
    return Paired(math.exp(found.mean), found.deviation, found.count, math.exp(found.low), math.exp(found.high))


@cache
def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: what |t| exceeds with probability 5 %. `freedom` ≥ 1 is a whole number."""
    low, high = 1.9, 12.8  # of infinitely many degrees of freedom, of one
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """P(|T| ≤ t), exactly: a finite sum in θ = atan(t / √ν) (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(theta), freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    total *= math.sin(theta)
    return 2.0 / math.pi * (theta + total) if odd else total
