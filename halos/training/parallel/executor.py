"""Train the jobs in flight in several processes at once, on the cores of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Optional, Union

import torch

from halos.errors import ConfigError, Diverged, require
from halos.hooks import Register, hookimpl
from halos.training import Job, Outcome
from halos.training.cores import cores
from halos.training.inline import Inline
from halos.training.pages import own_pages
from halos.training.parallel.child import value
from halos.training.parallel.inner import NEW, Inner, Places, packed, unpack, written
from halos.training.parallel.pool import Pool
from halos.training.parallel.slots import Slot, Slots
from halos.values.params import Params

WORTH = 0.005  # seconds of a job from which on it is worth to send it to another process, which takes 0.2 ms
LONG = 0.25  # seconds of such jobs that a run has trained before it is taken for one that goes on


class Order(NamedTuple):
    """A job as another process is sent it: all vectors by the slots that they are in."""

    job: Any  # a Job's fields but its start
    start: int
    inner: Inner  # that it begins with
    moments: Optional[tuple[int, ...]]  # where those go that it ends with; None of a gradient
    result: int  # where its parameters go, or the gradient


class Reply(NamedTuple):
    """What came of it, beside the vectors."""

    losses: tuple[float, ...]
    chunks: tuple[int, ...]
    loss: Optional[float]
    inner: Inner  # that it ends with
    skipped: int  # local steps
    diverged: Optional[Diverged] = None  # then there is nothing else


class UnderWay(NamedTuple):
    """What must not be used otherwise as long as a job is computed: its start, and where it writes."""

    start: Params
    moments: Optional[list[Slot]]
    result: Slot


@dataclass
class Parallel(Inline):
    """Trains in several processes, each on a CPU core; results are those of `inline`, to the last bit.

    Data and model are opened once, and the processes forked then. Workers' inner states and parameters are in memory
    that all share, and never modified: a job reads one state and writes another, which becomes the worker's when its
    result is taken. So any process can do any job, checkpoints are those of `inline`, and what a process that was
    killed had in hand another one does again. Evaluations, probes and steps along gradients are computed here.
    """

    alike: ClassVar[str] = "inline"

    device: str = "cpu"  # or `auto`, which is the same here
    threads: int = 1  # of torch, in each process
    processes: Union[int, Literal["auto"]] = "auto"  # `auto`: one per core, or none where that takes longer

    def __post_init__(self) -> None:
        self._pool: Optional[Pool] = None
        self._slots: Optional[Slots] = None
        self._away = False  # whether jobs are computed in other processes
        few = self.processes == "auto" or self.processes >= 1
        require(few, "processes", self.processes, "a positive number of processes, or auto")
        require(self.threads == 1, "threads", self.threads, "1, the threads of each process; see processes")
        if self.device not in ("cpu", "auto"):
            raise ConfigError("device", f"{self.device!r} is not cpu, where parallel trains; inline trains on a GPU")
        self.device = "cpu"

    def _opened(self) -> None:
        workers = len(self._task.cluster.workers)
        count = min(cores(), workers) if self.processes == "auto" else self.processes
        if self.processes == "auto" and count < 2:
            return
        self._compiles = self._task.train.compile
        layout = self._trainer.layout
        self._places = Places(self._task.train.optimizer.init(layout, torch.device("meta")), layout.size)
        self._slots = Slots(layout.size, layout.dtype)
        self._under_way: dict[int, UnderWay] = {}  # by job
        self._tries, self._spent = 0, 0.0  # jobs that were computed here, and seconds, to see whether it pays
        self._pool = Pool(self._compute, self._pack, count)
        if self._slots.large:  # what is ahead has its vectors twice
            self._pool.ahead = count + 1
        self._ahead, self._pool.ahead = self._pool.ahead, 0
        if self.processes != "auto":
            self._send_away(self._pool)

    def submit(self, job: Job) -> None:
        if self._pool is not None:
            self._pool.add(job)

    def _computed(self, job: Job) -> Outcome:
        if self._pool is None:
            return self._trained(job)
        if not self._away:
            return self._tried(job, self._pool)
        self._trainer.rest()
        reply: Reply = value(self._pool.answer(job))
        self._trainer.states.skipped += reply.skipped
        if reply.diverged is not None:
            raise reply.diverged
        outcome = self._taken(job, reply)
        self._pool.go_on()  # now that there is room where the worker's state was
        return outcome

    def _send_away(self, pool: Pool) -> None:
        """From now on let others compute the jobs; what is left to do here is to merge and to evaluate."""
        self._away, pool.ahead = True, self._ahead
        own_pages(self._trainer.flat)

    def _tried(self, job: Job, pool: Pool) -> Outcome:
        """What comes of a job, computed here; from then on elsewhere, if they take long enough."""
        pool.withdraw(job)
        began = time.perf_counter()
        outcome = self._trained(job)
        if self._tries:  # what is done for the first time takes longer
            self._spent += time.perf_counter() - began
        if self._spent >= LONG and self._spent >= WORTH * self._tries:
            self._send_away(pool)
        self._tries += 1
        return outcome

    def _pack(self, job: Job) -> Order:
        """The job as another process is sent it, at the moment at which one is free."""
        assert self._slots is not None
        start = self._moved(job.start, self._slots)
        state = self._trainer.states.known(job.worker)
        inner = NEW if state is None else packed(state, self._places, self._slots)
        under_way = self._under_way.get(job.id)  # where it was given to a process that died
        if under_way is None:
            room = None if job.gradient else [self._slots.new() for _ in range(self._places.count)]
            under_way = self._under_way[job.id] = UnderWay(job.start, room, self._slots.new())
        moments = None if under_way.moments is None else tuple(slot.number for slot in under_way.moments)
        return Order(job[:2] + job[3:], start, inner, moments, under_way.result.number)

    def _moved(self, params: Params, slots: Slots) -> int:
        """Return the slot of parameters. They lie in it from now on: all jobs that start from them read them there."""
        if params.flat is None:
            raise ValueError("hollow parameters cannot be trained")
        held = slots.holding(params.flat)
        if held is None:
            held, vector = slots.new()
            params.flat = vector.copy_(params.flat)
        return held

    def _compute(self, order: Order) -> Reply:
        """What comes of a job, in another process."""
        slots, trainer = self._slots, self._trainer
        assert slots is not None
        if self._compiles:  # for this process, which has not yet; after a look, as in the first one: the same bits
            self._look()
            self._compiles = False
        job = Job._make([*order.job[:2], Params(trainer.layout, slots.at(order.start)), *order.job[2:]])
        begun = [slots.at(index) for index in order.inner.slots or ()]
        if order.moments is not None:  # what it begins with stays as it is
            begun = [slots.at(index).copy_(vector) for index, vector in zip(order.moments, begun)]
        state, trainer.states.skipped = trainer.states.new(), 0
        unpack(order.inner, self._places, begun, state)
        trainer.states.give(job.worker, state)
        try:
            _, losses, chunks, loss = self._trained(job, slots.at(order.result))
        except Diverged as error:
            return Reply((), (), None, NEW, trainer.states.skipped, error)
        finally:
            trainer.states.forget(job.worker)  # it lives where it is written
            trainer.rest()
        return Reply(losses, chunks, loss, written(state, self._places, order.moments, slots), trainer.states.skipped)

    def _taken(self, job: Job, reply: Reply) -> Outcome:
        """The outcome of a job, and its worker's inner state as it left it."""
        under_way = self._under_way.pop(job.id)
        state = self._trainer.states.of(job.worker)
        unpack(reply.inner, self._places, [slot.vector for slot in under_way.moments or ()], state)
        return Outcome(Params(self._trainer.layout, under_way.result.vector), reply.losses, reply.chunks, reply.loss)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        if self._slots is not None:
            self._slots.close()
        super().close()


@hookimpl
def register_executors(register: Register) -> None:
    register("parallel", Parallel)
