"""Scales: in which unit, and to how many digits, the numbers of one column are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from halos.compare.statistics import Paired, Spread

UNKNOWN = "–"
DIGITS = 3  # that count, of a number in the middle of its column
UNITS = {  # by what is counted: how large, and what it is called
    "seconds": ((1.0, "s"), (3600.0, "h")),
    "bytes": ((1.0, "bytes"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")),
    "tokens": ((1.0, "tokens"), (1e3, "k tokens"), (1e6, "M tokens"), (1e9, "B tokens")),
    "steps": ((1.0, "steps"),),
}
COUNTED = ("tokens", "steps", "bytes")
LARGE = {"seconds": 36_000.0, "bytes": 1e3, "tokens": 1e4}  # of a unit: from here on the next one is clearer


@dataclass(frozen=True)
class Scale:
    """How the numbers of one column are written."""

    unit: str = ""
    size: float = 1.0
    decimals: int = 0

    @staticmethod
    def of(values: Sequence[float], kind: str = "", least: int = 0) -> Scale:
        """For these values (NaN and 0 do not count) of a kind in UNITS; with at least so many decimals."""
        known = [abs(value) for value in values if value and math.isfinite(value)]
        middle = median(known) if known else 0.0
        units = UNITS.get(kind, ((1.0, ""),))
        size, unit = next((each for each in units if middle < each[0] * LARGE.get(kind, math.inf)), units[-1])
        decimals = DIGITS - 1 - math.floor(math.log10(middle / size)) if middle else 0
        if kind in COUNTED and size == 1.0 and all(value == round(value) for value in known):
            decimals = 0
        return Scale(unit, size, min(12, max(least, decimals)))

    def show(self, value: float, sign: str = "") -> str:
        """`2,099`; with `sign` "+" as `+0.02`. NaN is unknown."""
        return UNKNOWN if math.isnan(value) else format(value / self.size, f"{sign},.{self.decimals}f")

    def spread(self, spread: Spread | Paired, sign: str = "") -> str:
        """`2.231 ± 0.004`."""
        text = self.show(spread.mean, sign)
        return text if math.isnan(spread.deviation) else f"{text} ± {self.show(spread.deviation)}"


def amount(value: float, kind: str) -> str:
    """A single amount with its unit: `1,064 s`, `524k tokens`, `12.3 GB`."""
    scale = Scale.of([value], kind)
    return f"{scale.show(value)}{'' if kind == 'tokens' and scale.size > 1.0 else ' '}{scale.unit}"
