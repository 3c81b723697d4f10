"""How far a sweep is, in one line: cells over, under way and failed, and the wall time left."""

from __future__ import annotations

import time

from halos.observers.line import Line, Parts
from halos.observers.units import duration
from halos.sweep.pool import Ended, Pool

TELLING = 0.05  # share of its budget from which on a run tells how long it takes


class Progress:
    """The line of a sweep of which `over` of `count` cells had a result before."""

    def __init__(self, name: str, pool: Pool, count: int, over: int) -> None:
        self._name, self._pool, self._count, self._over = name, pool, count, over
        self._failed = 0
        self._took: list[float] = []  # seconds of each cell that was run to its end
        self._line, self._began = Line(), time.monotonic()

    def look(self) -> None:
        """Draw the line, if it is time to."""
        self._line.write_if_due(self._parts, time.monotonic())

    def ended(self, cell: Ended) -> None:
        """A cell is no longer under way."""
        self._over += cell.problem is None
        self._failed += cell.problem is not None
        if cell.problem is None:
            self._took.append(cell.seconds)
        self.look()

    def close(self) -> None:
        """The last line."""
        self._line.write(self._parts(time.monotonic(), last=True), last=True)

    def _parts(self, now: float, last: bool = False) -> Parts:
        under_way = len(self._pool.running)
        parts = [(3, self._name), (0, f"{self._over:,}/{self._count:,} cells")]
        if under_way:
            parts.append((4, f"{under_way:,} under way"))
        if self._failed:
            parts.append((1, f"{self._failed:,} failed"))
        left = None if last else self._left(now)
        wall = duration(now - self._began) if left is None else f"{duration(left)} left"
        return [*parts, (2, f"wall {wall}")]

    def _left(self, now: float) -> float | None:
        """Seconds until all are over, as far as that can be told: cells to come take what others took on average."""
        shares = [(self._pool.share(each), now - each.began) for each in self._pool.running]
        known = [seconds / share for share, seconds in shares if share >= TELLING]
        if not (several := [*self._took, *known]):
            return None
        mean = sum(several) / len(several)
        under_way = [
            seconds / share - seconds if share >= TELLING else max(0.0, mean - seconds) for share, seconds in shares
        ]
        at_once = max(1, len(shares))
        return max([*under_way, (sum(under_way) + self._pool.left * mean) / at_once], default=0.0)
