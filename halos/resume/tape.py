"""The tape: every number that came out of tensors, in order, so that a replay without tensors can return it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any, Optional


class ReplayDiffers(Exception):
    """A replay does something else than the run that it replays."""


class Tape:
    """Passes numbers through; keeps them if `recording`; returns those of an earlier run while `replaying`.

    While `aside` (observers, computing a number), nothing is recorded or numbered: observers may be others next
    time, and a replay computes no number.
    """

    def __init__(self, recording: bool = False, earlier: Optional[Iterable[float]] = None) -> None:
        self.replaying = earlier is not None
        self.recording = recording or self.replaying
        self.aside = False
        self.numbers = array("d", earlier or ())
        self._position = 0  # of the next number to be returned

    @property
    def count(self) -> int:
        """How many numbers have come out of tensors so far."""
        return self._position if self.replaying else len(self.numbers)

    def number(self, compute: Callable[..., float], *arguments: Any) -> float:
        """Return `compute(*arguments)`; in a replay, what that was at this place of the earlier run."""
        if self.aside or not self.recording:
            return compute(*arguments)
        if self.replaying:
            return self.take(1)[0]
        self.aside = True
        try:
            made = compute(*arguments)
        finally:
            self.aside = False
        self.add(made)
        return made

    def add(self, *numbers: float) -> None:
        """Keep numbers that were computed."""
        if self.recording:
            self.numbers.extend(numbers)

    def add_optional(self, number: Optional[float]) -> None:
        """Keep a number that may be None."""
        self.add(*((0,) if number is None else (1, number)))

    def add_text(self, text: str) -> None:
        """Keep a text, as numbers."""
        encoded = text.encode()
        self.add(len(encoded), *encoded)

    def take(self, count: int) -> list[float]:
        """Return the next numbers of the earlier run. Raises ReplayDiffers if there are not so many."""
        first, self._position = self._position, self._position + count
        if self._position > len(self.numbers):
            raise ReplayDiffers("it takes more numbers out of parameters than before the checkpoint")
        return self.numbers[first : self._position].tolist()

    def take_count(self) -> int:
        """Return the next number, which says how many of something there are. Raises ReplayDiffers if it cannot."""
        (number,) = self.take(1)
        if not (number.is_integer() and number >= 0):
            raise ReplayDiffers(f"it finds {number} where the checkpoint should say how many losses there are")
        return int(number)

    def take_optional(self) -> Optional[float]:
        """Return what `add_optional` kept."""
        return self.take(1)[0] if self.take_count() else None

    def take_text(self) -> str:
        """Return what `add_text` kept. Raises ReplayDiffers if it is no text."""
        try:
            return bytes(self.take_count() for _ in range(self.take_count())).decode()
        except ValueError:
            raise ReplayDiffers("it finds numbers where the checkpoint should name a metric") from None

    def go_live(self) -> None:
        """Compute numbers from here on. Raises ReplayDiffers unless all of the earlier run have been returned."""
        if self._position != len(self.numbers):
            raise ReplayDiffers("it takes fewer numbers out of parameters than before the checkpoint")
        self.replaying = False

    def stop(self) -> None:
        """Keep no more numbers, nor those so far."""
        self.recording = False
        del self.numbers[:]

    def beside(self, listener: Callable[..., Any]) -> Callable[..., Any]:
        """Return `listener`, called aside; itself, if nothing is recorded."""
        if not self.recording:
            return listener

        def called(*record: Any) -> Any:
            before, self.aside = self.aside, True
            try:
                return listener(*record)
            finally:
                self.aside = before

        return called
