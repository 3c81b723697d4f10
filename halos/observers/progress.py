"""The progress line on stderr: how far the run is, in simulated time, steps, loss and wall time left."""

from __future__ import annotations

import math
import time
from typing import Optional

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.line import Line
from halos.observers.units import duration
from halos.values.records import GLOBAL, Commit, Evaluation, Summary, Update, mean_loss
from halos.values.rounding import rounded_down

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
        self._experiment = experiment
        self._real = experiment.real
        self._replaying = experiment.resumed_at is not None
        self._line = Line()
        self._began = self._glanced = time.monotonic()
        if self._line.live:
            self._line.write(self._parts(self._began))

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
            self._line.write_if_due(self._parts, time.monotonic())

    @hookimpl(tryfirst=True)  # so that the line is closed whatever happens to the others
    def on_finish(self, summary: Summary) -> None:
        self._simulated = summary.get("simulated_seconds", self._simulated)
        now = time.monotonic()
        took = summary.get("wall_seconds", now - self._began)  # as the closing table has it
        self._line.write(self._parts(now, took=took), last=True)

    def _glance(self) -> None:
        """Look at the wall clock; the next look is due after so many records as come in a hundredth of a second."""
        now = time.monotonic()
        if now - self._glanced < GLANCE_SECONDS:
            self._stride = min(self._stride * 2, GLANCE_RECORDS)
        else:
            self._stride = max(1, self._stride // 2)
        self._glanced = now
        self._updates_left = self._stride
        self._line.write_if_due(self._parts, now)

    def _share(self) -> float:
        return self._experiment.share(self._local_steps, self._trained, self._simulated)

    def _parts(self, now: float, took: Optional[float] = None) -> list[tuple[int, str]]:
        """Return the line's parts from left to right, and how little each matters (0: the most)."""
        given, share = self._experiment, self._share()
        steps = f"{self._local_steps:,}"
        by_steps = (
            not math.isinf(given.local_steps)
            and self._simulated / given.seconds <= self._local_steps / given.local_steps
        )
        if by_steps:
            steps += f"/{int(given.local_steps):,}"
        parts = [(6, given.name), (2, f"simulated {duration(self._simulated)}"), (5, f"{steps} steps")]
        if not all(map(math.isinf, (given.local_steps, given.trained_steps, given.seconds))):
            parts.append((4, f"{rounded_down(share * 100)} %"))
            by_time = self._simulated / given.seconds >= self._trained / given.trained_steps
            if by_time and not by_steps and not math.isinf(given.seconds):
                parts[-1] = (4, f"{parts[-1][1]} of {duration(given.seconds)}")
        gained = share - self._share_at_start
        passed = now - self._began
        if took is not None or gained <= 0 or self._replaying:
            parts.append((3, f"wall {duration(passed if took is None else took)}"))
        else:
            parts.append((3, f"wall {duration(passed * (1 - share) / gained)} left"))
        names = sorted(self._losses, key=lambda name: (name != "train", name != "val"))
        parts += [(1 if name in ("train", "val") else 7, f"{name} {self._losses[name]:.3f}") for name in names]
        parts.append((8, f"{_short(self._local_steps * given.tokens_per_step)} tokens"))
        return parts


def _short(count: int) -> str:
    """A large count: `8.4M`."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f}{unit}"
    return str(count)
