"""What a point of a curve stands for: all that came since the last one."""

from __future__ import annotations

import math


class Window:
    """What was added since it was last taken: the mean, weighed, and the most; what is not a number does not count."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sum, self._count, self._most = 0.0, 0, -math.inf

    def add(self, value: float, weight: int = 1) -> None:
        if value == value:
            self._sum += weight * value
            self._count += weight
            if value > self._most:
                self._most = value

    def take(self) -> tuple[float, float]:
        """Mean and maximum; NaN if no number was added."""
        taken = (self._sum / self._count, self._most) if self._count else (math.nan, math.nan)
        self._clear()
        return taken
