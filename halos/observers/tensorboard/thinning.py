"""Which of very many records make a point of a curve."""

from __future__ import annotations

POINTS = 900  # per curve, about; with the first and the last fewer than TensorBoard keeps


class Thinning:
    """Lets about POINTS records through: evenly over the budget; ever fewer, if only a target loss ends the run."""

    def __init__(self) -> None:
        self._part = -1  # of POINTS equal parts of the budget, that of the last point
        self._seen = self._passed = 0
        self._stride = 1

    def due(self, share: float) -> bool:
        """Whether the record at `share` (0 to 1) of the budget makes a point; 0 if the share is unknown."""
        if share > 0:
            part = int(share * POINTS)
            due = part != self._part
            self._part = part
            return due
        self._seen += 1
        if self._seen % self._stride:
            return False
        self._passed += 1
        if self._passed % POINTS == 0:
            self._stride *= 2
        return True
