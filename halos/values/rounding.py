"""Rounding errors: which whole number or moment is meant by a float that is next to it."""

from __future__ import annotations

import math
from typing import Optional

# Relative. The sum of a million times is off by less, and nothing in a run is told apart by so little.
SLACK = 1e-10


def rounded_up(x: float, of: Optional[float] = None) -> int:
    """Return the least integer not below `x`, taking an `x` that is an integer but for rounding errors as that one.

    `of` is the largest number that `x` comes from (as a difference does), by default `x` itself.
    """
    return math.ceil(_meant(x, 1, of))


def rounded_down(x: float, of: Optional[float] = None) -> int:
    """Return the largest integer not above `x`; as rounded_up."""
    return math.floor(_meant(x, 1, of))


def rounded(x: float, of: Optional[float] = None) -> int:
    """Return the integer nearest to `x`, the even one in the middle of two (as `round`); as rounded_up."""
    return round(_meant(x, 2, of))


def latest(moment: float) -> float:
    """Return the latest time, in seconds, that is `moment` but for rounding errors."""
    return moment * (1.0 + SLACK)


def earliest(moment: float) -> float:
    """Return the earliest time, in seconds, that is `moment` but for rounding errors."""
    return moment * (1.0 - SLACK)


def _meant(x: float, parts: int, of: Optional[float]) -> float:
    """The multiple of 1 / parts that `x` is but for rounding errors; otherwise `x`."""
    near = round(x * parts) / parts
    return near if abs(x - near) <= SLACK * abs(x if of is None else of) else x
