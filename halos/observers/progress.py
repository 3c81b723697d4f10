"""The progress line on stderr: how far the run is, in simulated time, steps, loss and wall time left."""

from __future__ import annotations

import math
import sys
import time

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.units import duration
from halos.values.records import Commit, Evaluation, Summary, Update, mean_loss

LIVE_SECONDS = 0.1  # between two drawings on a terminal
PLAIN_SECONDS = 10.0  # between two lines elsewhere
GLANCE_SECONDS = 0.01  # how often, roughly, it looks at the wall clock
GLANCE_RECORDS = 1024  # and after how many records at the latest


class Progress:
    """Redraws one line on a terminal; elsewhere writes plain lines, rarely."""

    def __init__(self) -> None:
        self._updates_left = 1  # until the next look at the wall clock
        self._stride = 1
        self._simulated = 0.0
        self._local_steps = self._trained = 0
        self._share_at_start = 0.0
        self._losses: dict[str, float] = {}  # by name, as shown

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
            self._write(self._line(self._drawn), last=False)

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
        if commit.server == "global" and commit.kind == "update":
            self._simulated = commit.time
            self._local_steps = commit.local_steps
            if self._real:  # seldom enough; a timing run has no losses
                loss = mean_loss(commit)
                if loss is not None:
                    self._losses["train"] = loss

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if evaluation.of == "global":
            self._losses["val" if evaluation.set == "validation" else evaluation.set] = evaluation.loss
            self._simulated = evaluation.time
            self._draw_if_due(time.monotonic())

    @hookimpl(tryfirst=True)  # so that the line is closed whatever happens to the others
    def on_finish(self, summary: Summary) -> None:
        self._simulated = summary.get("simulated_seconds", self._simulated)
        self._write(self._line(time.monotonic(), left=False), last=True)

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
            self._write(self._line(now), last=False)

    def _share(self) -> float:
        """Return the share, 0 to 1, of the budget that is furthest along."""
        trained = self._trained / self._trained_steps
        return min(1.0, max(self._local_steps / self._steps, trained, self._simulated / self._seconds))

    def _line(self, now: float, left: bool = True) -> str:
        share = self._share()
        steps = f"{self._local_steps:,}"
        by_steps = not math.isinf(self._steps) and self._simulated / self._seconds <= self._local_steps / self._steps
        if by_steps:
            steps += f"/{int(self._steps):,}"
        parts = [self._name, duration(self._simulated), f"{steps} steps"]
        if not all(map(math.isinf, (self._steps, self._trained_steps, self._seconds))):
            by_time = not by_steps and self._simulated / self._seconds >= self._trained / self._trained_steps
            in_time = by_time and not math.isinf(self._seconds)
            parts.append(f"{math.floor(share * 100)} %" + (f" of {duration(self._seconds)}" if in_time else ""))
        gained = share - self._share_at_start
        if not left:
            parts.append(f"took {duration(now - self._began)}")
        elif gained > 0 and not self._replaying:
            parts.append(f"{duration((now - self._began) * (1 - share) / gained)} left")
        names = sorted(self._losses, key=lambda name: (name != "train", name != "val"))
        parts += [f"{name} {self._losses[name]:.3f}" for name in names]
        parts.append(f"{_short(self._local_steps * self._tokens_per_step)} tokens")  # last: a narrow terminal cuts it
        return " | ".join(parts)

    def _write(self, line: str, last: bool) -> None:
        try:
            if self._live:
                self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
                text = Text(line)
                text.truncate(self._console.width - 1, overflow="crop")  # a character in the last column would wrap
                self._console.print(text, end="\n" if last else "", soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)
        except OSError:  # whoever watched has gone; that is no reason to end the run
            self._interval = math.inf


def _short(count: int) -> str:
    """A large count: `8.4M`."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f}{unit}"
    return str(count)
