"""Processes that compute jobs: those whose results are asked for first are computed first, and few beyond them."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Optional

from halos.errors import Died, UserError
from halos.training import Job
from halos.training.agenda import Agenda
from halos.training.elsewhere import in_hand
from halos.training.parallel.child import Answer, serve, signals_waiting

logger = logging.getLogger(__name__)

SMALL = 1 << 15  # bytes that fit into a pipe whose other end is not being read
EACH = 2  # jobs that a process is given: the one that it computes, and the next


class Given(NamedTuple):
    """A job that a process was given, and the message by which."""

    job: Job
    message: bytes


@dataclass
class Child:
    """A process."""

    process: BaseProcess
    pipe: Connection
    given: list[Given] = field(default_factory=list)  # and not answered yet, in this order

    @property
    def load(self) -> int:
        """Local steps that it has to take."""
        return sum(given.job.steps for given in self.given)


class Pool:
    """Computes jobs in several processes; so many of them at most whose results nobody has taken yet: `ahead`.

    A job is given away when a process is free, or will be next. Nobody waits to write while the other one does: a
    process that may be computing is sent no more than fits into the pipe.
    """

    def __init__(self, compute: Callable[[Any], Any], pack: Callable[[Job], Any], processes: int) -> None:
        """Fork so many processes; in each, `compute` makes an answer of what `pack` made of a job, here.

        Raises UserError if there can be no processes.
        """
        if "fork" not in multiprocessing.get_all_start_methods():
            raise UserError("executor: parallel needs processes that fork, which this system has not; inline does not")
        self.ahead = EACH * processes + 1  # one that is due late, and done early, must not keep a process waiting
        self._pack = pack
        self._agenda = Agenda()
        self._answers: dict[int, Answer] = {}  # by id
        self._children: list[Child] = []
        self._died = ""  # how the last one did
        self._end = weakref.finalize(self, _end, self._children)  # whatever happens
        context = multiprocessing.get_context("fork")
        with _garbage_left_alone(), signals_waiting():
            for _ in range(processes):
                ours, theirs = context.Pipe()
                others = [child.pipe for child in self._children] + [ours]
                process = context.Process(target=serve, args=(compute, theirs, others, os.getpid()), daemon=True)
                try:
                    process.start()
                except OSError as error:  # no room for another process
                    self.close()
                    raise UserError(f"executor: no process can be started: {error.strerror or error}") from None
                theirs.close()
                self._children.append(Child(process, ours))

    def add(self, job: Job) -> None:
        """Take a job, to be computed when its turn comes; not at once, since the next may be due before it."""
        self._agenda.add(job)

    def withdraw(self, job: Job) -> bool:
        """Forget a job that nobody was given yet; whether there is such a one."""
        return self._agenda.withdraw(job)

    def answer(self, job: Job) -> Answer:
        """Return what came of a job, once; `go_on` is called then. Raises Died if there is no process left."""
        while job.id not in self._answers:
            if not self._children:
                raise Died(f"{self._died}; no other is left")
            if job.id in self._agenda.waiting:
                self._give_first(self._agenda.waiting[job.id])
            self._give()
            self._hear(None)
        self._agenda.take()
        return self._answers.pop(job.id)

    def go_on(self) -> None:
        """After an answer: hear who is free by now, and give away what may be."""
        self._hear(0.0)
        self._give()

    def close(self) -> None:
        """End all processes, at once: they have nothing that anybody will ask for."""
        self._end()

    def _give(self) -> None:
        """Give away what may be, in the order in which it is due."""
        for job in self._agenda.upcoming(self.ahead):
            if not self._give_first(job):
                return

    def _give_first(self, job: Job) -> bool:
        """Give a job to the process that has least to do; whether there is one with room for it."""
        free = [child for child in self._children if len(child.given) < EACH]
        if not free:
            return False
        child = min(free, key=lambda child: child.load)
        message = pickle.dumps(self._pack(job))
        if child.given and len(message) > SMALL:
            return False
        self._agenda.give(job)
        child.given.append(Given(job, message))
        try:
            child.pipe.send_bytes(message)
        except OSError:
            self._bury(child)
        return True

    def _hear(self, seconds: Optional[float]) -> None:
        """Take all answers there are; wait for one so long, None: until there is one."""
        ready = wait([child.pipe for child in self._children], seconds if self._children else 0.0)
        for child in [child for child in self._children if child.pipe in ready]:
            try:
                answer = pickle.loads(child.pipe.recv_bytes())
            except (EOFError, OSError):
                self._bury(child)
            else:
                self._answers[child.given.pop(0).job.id] = answer

    def _bury(self, child: Child) -> None:
        """Take a process that has died out of the pool; the others compute its jobs."""
        self._children.remove(child)
        child.pipe.close()
        child.process.join()
        for given in child.given:
            self._agenda.take_back(given.job)
        self._died = f"executor parallel: process {child.process.pid} {_how(child.process.exitcode or 0)}"
        self._died += in_hand(given.job for given in child.given)
        if self._children:
            logger.warning("%s; the others train these again" if child.given else "%s", self._died)


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")


def _end(children: list[Child]) -> None:
    for child in children:
        child.process.kill()
    for child in children:
        child.process.join()
        child.pipe.close()
    children.clear()


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """What there is now is no garbage to a process forked here: to look for it would copy every page that it is on."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
