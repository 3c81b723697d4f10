"""A line on stderr that says how far something is: redrawn on a terminal, written anew now and then elsewhere.

On a terminal too narrow for all of it, what matters least is left out.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

LIVE_SECONDS = 0.1  # between two drawings on a terminal
PLAIN_SECONDS = 10.0  # between two lines elsewhere
SEPARATOR = " | "

Parts = list[tuple[int, str]]  # from left to right, and how little each matters (0: the most)


class Line:
    """The line; whoever has one says what is in it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self.live = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._interval = LIVE_SECONDS if self.live else PLAIN_SECONDS
        self._drawn = time.monotonic()
        self._width = 0  # of the terminal
        self._least = math.inf  # what matters less than this had no room at that width

    def write_if_due(self, parts: Callable[[float], Parts], now: float) -> None:
        """Write what `parts` has at `now` (by `time.monotonic`), unless something was written just before."""
        if now - self._drawn >= self._interval:
            self._drawn = now
            self.write(parts(now))

    def write(self, parts: Parts, last: bool = False) -> None:
        """Write at once. The `last` one stays: it may have what had no room before."""
        if last:
            self._least = math.inf
        try:
            if self.live:
                self.clear()
                # A character in the last column would wrap.
                line = Text(self._fitting(parts, self._console.width - 1))
                self._console.print(line, end="\n" if last else "", soft_wrap=True)
            else:
                print(SEPARATOR.join(text for _, text in parts), file=sys.stderr, flush=True)
        except OSError:  # whoever watched has gone; that is no reason to end anything
            self._interval = math.inf

    def clear(self) -> None:
        """Take a line that was not the last one off the terminal, so that something else can be written."""
        if self.live:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def _fitting(self, parts: Parts, width: int) -> str:
        """Return a line of at most `width` characters. What was left out once stays so: the line would jump."""
        if width != self._width:
            self._width, self._least = width, math.inf
        while True:
            kept = [(rank, text) for rank, text in parts if rank < self._least]
            line = SEPARATOR.join(text for _, text in kept)
            if len(line) <= width or len(kept) <= 1:
                return line[:width]
            self._least = max(rank for rank, _ in kept)
