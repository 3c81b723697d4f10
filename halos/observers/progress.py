"""The progress line on stderr: how far the run is, in simulated time, steps, loss and wall time left.

On a terminal too narrow for all of it, what matters least is left out: the losses stay longest.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Optional

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.units import duration
from halos.values.records import GLOBAL, Commit, Evaluation, Summary, Update, mean_loss
from halos.values.rounding import rounded_down

LIVE_SECONDS = 0.1  # between two drawings on a terminal
PLAIN_SECONDS = 10.0  # between two lines elsewhere
GLANCE_SECONDS = 0.01  # how often, roughly, it looks at the wall clock
GLANCE_RECORDS = 1024  # and after how many records at the latest
SEPARATOR = " | "


class Progress:
    """Redraws one line on a terminal; elsewhere writes plain lines, rarely."""

    def __init__(self) -> None:
        self._updates_left = 1  # until the next look at the wall clock
        self._stride = 1
        self._simulated = 0.0
        self._local_steps = self._trained = 0
        self._share_at_start = 0.0
        self._losses: dict[str, float] = {}  # by name, as shown
        self._width = 0  # of the terminal
        self._least = math.inf  # what matters less than this had no room at that width

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._name = experiment.name
        self._real = experiment.real
        self._steps = experiment.local_steps
        self._trained_steps = experiment.trained_steps
        self._seconds = experiment.seconds
        self._tokens_per_step = experiment.tokens_per_step
        self._replaying = experiment.resumed_at is not None
        self._console = Console(stderr=True, highlight=False)
        self._live = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._interval = LIVE_SECONDS if self._live else PLAIN_SECONDS
        self._began = self._drawn = self._glanced = time.monotonic()
        if self._live:
            self._write(self._parts(self._drawn), last=False)

    @hookimpl
    def on_resume(self) -> None:
        self._replaying = False
        self._share_at_start = self._share()
        self._began = time.monotonic()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._trained += update.steps
        self._updates_left -= 1
        if not self._updates_left:
            self._simulated = update.time
            self._glance()

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.server == GLOBAL and commit.kind == "update":
            self._simulated = commit.time
            self._local_steps = commit.local_steps
            if self._real:  # seldom enough; a timing run has no losses
                loss = mean_loss(commit)
                if loss is not None:
                    self._losses["train"] = loss

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if evaluation.of == GLOBAL:
            self._losses["val" if evaluation.set == "validation" else evaluation.set] = evaluation.loss
            self._simulated = evaluation.time
            self._draw_if_due(time.monotonic())

    @hookimpl(tryfirst=True)  # so that the line is closed whatever happens to the others
    def on_finish(self, summary: Summary) -> None:
        self._simulated = summary.get("simulated_seconds", self._simulated)
        now = time.monotonic()
        self._least = math.inf  # this one stays: it may have what had no room before
        took = summary.get("wall_seconds", now - self._began)  # as the closing table has it
        self._write(self._parts(now, took=took), last=True)

    def _glance(self) -> None:
        """Look at the wall clock; the next look is due after so many records as come in a hundredth of a second."""
        now = time.monotonic()
        if now - self._glanced < GLANCE_SECONDS:
            self._stride = min(self._stride * 2, GLANCE_RECORDS)
        else:
            self._stride = max(1, self._stride // 2)
        self._glanced = now
        self._updates_left = self._stride
        self._draw_if_due(now)

    def _draw_if_due(self, now: float) -> None:
        if now - self._drawn >= self._interval:
            self._drawn = now
            self._write(self._parts(now), last=False)

    def _share(self) -> float:
        """Return the share, 0 to 1, of the budget that is furthest along."""
        trained = self._trained / self._trained_steps
        return min(1.0, max(self._local_steps / self._steps, trained, self._simulated / self._seconds))

    def _parts(self, now: float, took: Optional[float] = None) -> list[tuple[int, str]]:
        """Return the line's parts from left to right, and how little each matters (0: the most)."""
        share = self._share()
        steps = f"{self._local_steps:,}"
        by_steps = not math.isinf(self._steps) and self._simulated / self._seconds <= self._local_steps / self._steps
        if by_steps:
            steps += f"/{int(self._steps):,}"
        parts = [(6, self._name), (2, f"simulated {duration(self._simulated)}"), (5, f"{steps} steps")]
        if not all(map(math.isinf, (self._steps, self._trained_steps, self._seconds))):
            parts.append((4, f"{rounded_down(share * 100)} %"))
            by_time = self._simulated / self._seconds >= self._trained / self._trained_steps
            if by_time and not by_steps and not math.isinf(self._seconds):
                parts[-1] = (4, f"{parts[-1][1]} of {duration(self._seconds)}")
        gained = share - self._share_at_start
        passed = now - self._began
        if took is not None or gained <= 0 or self._replaying:
            parts.append((3, f"wall {duration(passed if took is None else took)}"))
        else:
            parts.append((3, f"wall {duration(passed * (1 - share) / gained)} left"))
        names = sorted(self._losses, key=lambda name: (name != "train", name != "val"))
        parts += [(1 if name in ("train", "val") else 7, f"{name} {self._losses[name]:.3f}") for name in names]
        parts.append((8, f"{_short(self._local_steps * self._tokens_per_step)} tokens"))
        return parts

    def _fitting(self, parts: list[tuple[int, str]], width: int) -> str:
        """Return a line of at most `width` characters. What was left out once stays so: the line would jump."""
        if width != self._width:
            self._width, self._least = width, math.inf
        while True:
            kept = [(rank, text) for rank, text in parts if rank < self._least]
            line = SEPARATOR.join(text for _, text in kept)
            if len(line) <= width or len(kept) <= 1:
                return line[:width]
            self._least = max(rank for rank, _ in kept)

    def _write(self, parts: list[tuple[int, str]], last: bool) -> None:
        try:
            if self._live:
                self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
                # A character in the last column would wrap.
                line = Text(self._fitting(parts, self._console.width - 1))
                self._console.print(line, end="\n" if last else "", soft_wrap=True)
            else:
                print(SEPARATOR.join(text for _, text in parts), file=sys.stderr, flush=True)
        except OSError:  # whoever watched has gone; that is no reason to end the run
            self._interval = math.inf


def _short(count: int) -> str:
    """A large count: `8.4M`."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f}{unit}"
    return str(count)
