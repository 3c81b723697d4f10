"""Parallel processes: a cell in each, the next one as soon as one ends, and all of them end with this one."""

from __future__ import annotations

import importlib
import mmap
import multiprocessing
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Optional

from halos.command import INTERRUPTED
from halos.errors import UserError
from halos.sweep.folder import Place, state
from halos.sweep.process import work
from halos.training.parallel.child import signals_waiting

GLANCE = 0.1  # seconds between two looks at how far they are
# What a run imports, as far as it is known beforehand: most of a start's seconds. The rest the first runs tell.
ALWAYS = ("torch", "torch._dynamo", "torch.utils.tensorboard", "tensorboard.compat.proto.summary_pb2")


@dataclass
class Running:
    """A cell under way."""

    place: Place
    index: int
    process: BaseProcess
    report: Optional[Connection]  # that it gives at its end; None: it has been heard
    began: float  # by time.monotonic
    last: str = ""  # line that it said


@dataclass(frozen=True)
class Ended:
    """A cell that is no longer under way."""

    place: Place
    seconds: float
    problem: Optional[str]  # why it has no result


class Pool:
    """Runs cells, `jobs` at once, in the order given."""

    def __init__(self, places: Sequence[Place], jobs: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise UserError("a sweep needs processes that fork, which this system has not")
        self.running: list[Running] = []
        self._left = list(enumerate(places))[::-1]
        self._jobs = jobs
        self._context = multiprocessing.get_context("fork")
        self._shares = memoryview(mmap.mmap(-1, 8 * max(1, len(places)))).cast("d")  # shared with the processes
        self._alive, self._held = self._context.Pipe(duplex=False)
        self._asked: set[str] = set()  # modules

    @property
    def left(self) -> int:
        """How many have not begun."""
        return len(self._left)

    def share(self, running: Running) -> float:
        """How much of a cell's budget is spent, 0 to 1."""
        return float(self._shares[running.index])

    def run(self, look: Callable[[], None] = lambda: None) -> Iterator[Ended]:
        """Yield cells as they end; `look` is called ten times a second. Whatever ends this, ends all processes."""
        try:
            self._import(ALWAYS)
            self._fill()
            while self.running:
                several = [each.report for each in self.running if each.report is not None]
                ready = wait([*several, *(each.process.sentinel for each in self.running)], GLANCE)
                names = [name for each in self.running if each.report in ready for name in _heard(each)]
                over = [each for each in self.running if each.process.sentinel in ready]
                self.running = [each for each in self.running if each not in over]
                self._fill()
                yield from map(_ended, over)
                self._import(names)
                look()
        finally:
            self._stop()

    def _fill(self) -> None:
        while self._left and len(self.running) < self._jobs:
            try:
                self.running.append(self._begun(*self._left[-1]))
            except OSError as error:  # no room for another process
                if not self.running:
                    raise UserError(f"no process can be started: {error.strerror or error}") from None
                self._jobs = len(self.running)
                return
            self._left.pop()

    def _begun(self, index: int, place: Place) -> Running:
        ours, theirs = self._context.Pipe(duplex=False)
        tell = partial(self._shares.__setitem__, index)
        process = self._context.Process(target=work, args=(place, tell, theirs, self._alive, self._held))
        with signals_waiting():
            process.start()
        theirs.close()
        return Running(place, index, process, ours, time.monotonic())

    def _import(self, names: Iterable[str]) -> None:
        """Import what runs import, so that those to come need not."""
        new = [name for name in names if name not in self._asked]
        self._asked.update(new)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in new:
                with suppress(Exception):  # what cannot be imported by its name, the next runs import as this one did
                    importlib.import_module(name)
        if "torch" in new:
            sys.modules["torch"].get_default_dtype()  # until it is used, it is not loaded (halos.lazy)

    def _stop(self) -> None:
        """End all processes as Ctrl-C ends a run; a second one, at once."""
        try:
            for each in self.running:
                each.process.terminate()
            for each in self.running:
                each.process.join()
        except BaseException:
            for each in self.running:
                each.process.kill()
                each.process.join()
            raise
        finally:
            self._held.close()  # and so does one that began in the very moment of an interrupt


def _heard(running: Running) -> list[str]:
    """The modules that a run had to import, and its last line noted; none if its process was killed."""
    assert running.report is not None, "heard once"
    names: list[str] = []
    with running.report, suppress(EOFError, OSError):
        running.last, names = running.report.recv()
    running.report = None
    return names


def _ended(running: Running) -> Ended:
    running.process.join()
    code = running.process.exitcode or 0
    seconds = time.monotonic() - running.began
    problem = None
    if code < 0:
        name = signal.Signals(-code).name
        problem = f"killed by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")
    elif code == INTERRUPTED:
        problem = "interrupted"
    elif code and state(running.place.cell.folder) != "diverged":
        problem = re.sub(r"^(error|stopped|failed): ", "", running.last) or f"exit code {code}"
    return Ended(running.place, seconds, problem)
