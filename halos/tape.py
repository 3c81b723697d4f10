"""The tape: every number that came out of tensors, in order, so that a replay without tensors can return it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Optional

from halos.errors import UserError


class Tape:
    """Passes numbers through; keeps them if `recording`; returns those of an earlier run while `replaying`."""

    def __init__(self, recording: bool = False, earlier: Optional[Iterable[float]] = None) -> None:
        self.replaying = earlier is not None
        self.recording = recording or self.replaying
        self.numbers = array("d", earlier or ())
        self._position = 0  # of the next number to be returned

    def number(self, compute: Callable[[], float]) -> float:
        """What `compute` returns, or returned at this place of the earlier run."""
        if self.replaying:
            return self.take(1)[0]
        made = compute()
        self.add(made)
        return made

    def add(self, *numbers: float) -> None:
        """Keep what was computed."""
        if self.recording:
            self.numbers.extend(numbers)

    def take(self, count: int) -> list[float]:
        """The next numbers of the earlier run."""
        first, self._position = self._position, self._position + count
        if self._position > len(self.numbers):
            raise UserError("it takes more numbers out of its parameters than it did before the checkpoint")
        return self.numbers[first : self._position].tolist()

    def go_live(self) -> None:
        """From here on numbers are computed. UserError unless all of the earlier run have been returned."""
        if self._position != len(self.numbers):
            raise UserError("it takes fewer numbers out of its parameters than it did before the checkpoint")
        self.replaying = False
