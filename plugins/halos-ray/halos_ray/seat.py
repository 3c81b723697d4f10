"""What runs in an actor: an executor of its own, which trains the jobs that it is sent."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from typing import Any, NamedTuple, Optional

import torch

from halos import Diverged, Inline, Job, Params, portable
from halos_ray.packing import Packed, copied, packed, unpacked


class Place(NamedTuple):
    """Where an actor is."""

    node: str  # its id
    address: str
    pid: int


class Opened(NamedTuple):
    """What an actor has opened, to be compared with what the run has."""

    data: dict[str, Any]  # as `describe` has it
    start: Packed  # initial parameters
    torch: str  # its version


class Order(NamedTuple):
    """A job as an actor is sent it; its start comes beside it."""

    job: tuple[Any, ...]  # a Job's fields but its start
    after: Optional[int]  # the job at whose end the worker's inner state is that it begins with; None: it is a new one
    dropped: tuple[int, ...]  # workers whose inner state is needed here no more


class Reply(NamedTuple):
    """What came of it, beside the inner state."""

    params: Optional[Packed] = None  # where it ended, or the gradient; None: there was an error
    losses: tuple[float, ...] = ()
    chunks: tuple[int, ...] = ()
    loss: Optional[float] = None
    skipped: int = 0  # local steps
    seconds: float = 0.0  # that it took
    moving: Optional[float] = None  # seconds until the inner state was here; None: it was already
    error: Optional[BaseException] = None
    trace: str = ""  # of the error


class Seat:
    """An actor. Jobs come one after another; workers' inner states stay here until others are sent, or dropped."""

    def __init__(self) -> None:
        self._inline: Inline
        self._start: Params
        self._ends: dict[int, int] = {}  # by worker, the job at whose end it has the inner state that is here

    def place(self) -> Place:
        import ray

        context = ray.get_runtime_context()
        return Place(context.get_node_id(), ray.util.get_node_ip_address(), os.getpid())

    def open(self, task: bytes, device: str) -> Opened:
        """Open data and model as `inline` does, on this node."""
        self._inline = Inline(device)
        self._ends.clear()
        self._start = self._inline.open(pickle.loads(task))
        return Opened(self._inline.describe(), packed(self._start.flat), torch.__version__)

    def train(self, order: Order, start: Packed, inner: list[Any]) -> tuple[Reply, Any]:
        """Return what comes of a job, and the packed inner state it ends with.

        `inner` holds a reference to the packed inner state that it begins with, if that is not here.
        """
        worker = order.job[1]
        try:
            for other in order.dropped:
                self._forget(other)
            moving = self._prepare(worker, order.after, inner)
            self._ends.pop(worker, None)  # until the job is done, what is here is of no use
            began, skipped = time.perf_counter(), self._inline.skipped_steps() or 0
            flat = unpacked(start)
            job = Job._make([*order.job[:2], Params(self._start.layout, flat), *order.job[2:]])
            try:
                outcome, error = self._inline.result(job), None
            except Diverged as diverged:
                outcome, error = None, diverged
            left_out = (self._inline.skipped_steps() or 0) - skipped
            seconds = time.perf_counter() - began
            if outcome is None:
                return Reply(skipped=left_out, error=error), None
            self._ends[worker] = job.id
            reply = Reply(packed(outcome.params.flat), *outcome[1:], left_out, seconds, moving)
            return reply, packed(self._inline.inner_state(worker))
        except Exception as error:
            from ray import cloudpickle

            return Reply(error=portable(error, cloudpickle), trace="".join(traceback.format_exception(error))), None

    def _prepare(self, worker: int, after: Optional[int], inner: list[Any]) -> Optional[float]:
        """Let a worker have the inner state that is meant; the seconds that it took to come here, None: it was."""
        if inner:
            import ray

            began = time.perf_counter()
            self._inline.give(worker, copied(ray.get(inner[0])))
            return time.perf_counter() - began
        if after is None:
            self._forget(worker)
        assert self._ends.get(worker) == after, f"worker {worker} has the inner state of job {self._ends.get(worker)}"
        return None

    def _forget(self, worker: int) -> None:
        self._inline.forget(worker)
        self._ends.pop(worker, None)
