"""Verdicts: whether measured numbers bear a claim out, contradict it, or do not tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from benchmarks.claims.claim import Check
from halos.compare.statistics import Paired, ratio

HOLDS, CONTRADICTED, UNDECIDED = "holds", "does not hold", "undecided"


def estimate(check: Check, numbers: Mapping[str, Any]) -> Optional[Paired]:
    """Mean and 95 % interval over seeds; null if it is not known of every seed.

    One has diverged, has missed its target, has no other of its seed, or is no positive number, of which ratios are.
    """
    of, other = numbers["of"], numbers.get("other", {})
    if None in of.values() or None in other.values() or (check.other and of.keys() != other.keys()):
        return None
    if check.over and min(*of.values(), *other.values()) <= 0.0:
        return None
    if check.over:
        return ratio(of, other)
    return Paired.of(of, other) if check.minus else Paired.over(list(of.values()))


def verdict(checks: Sequence[Check], estimates: Sequence[Optional[Paired]]) -> str:
    """`holds` if every whole interval is within its bounds, `does not hold` if one is outside, else `undecided`.

    Of a single seed, which has no interval, the number itself decides: that is for what no seed changes.
    """
    said = [_one(check, each) for check, each in zip(checks, estimates, strict=True)]
    return CONTRADICTED if CONTRADICTED in said else UNDECIDED if UNDECIDED in said else HOLDS


def _one(check: Check, found: Optional[Paired]) -> str:
    if found is None or not found.count:
        return UNDECIDED
    least, most = (-math.inf if check.between[0] is None else check.between[0]), check.between[1]
    most = math.inf if most is None else most
    low, high = (found.mean, found.mean) if found.count == 1 else (found.low, found.high)
    if least <= low and high <= most:
        return HOLDS
    return CONTRADICTED if high < least or low > most else UNDECIDED
