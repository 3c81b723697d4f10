"""The actors that compute jobs: where each job goes, what comes back, and what happens when one dies."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import torch

from halos import Agenda, ConfigError, Died, Job, UserError, in_hand
from halos_ray.cluster import Cluster, library
from halos_ray.packing import packed, unpacked
from halos_ray.seat import Opened, Order, Place, Reply, Seat

logger = logging.getLogger("halos.ray")

EACH = 2  # jobs that an actor is given: the one that it computes, and the next
PLACED = 300.0  # seconds in which a cluster must have found a place for every actor


@dataclass
class Inner:
    """A worker's inner state as its last job that was taken left it. Its values are in this node's memory."""

    job: int  # that one
    values: Any  # packed
    reference: Any  # of the same, in Ray's store; None: it must be put there before it can be sent


class Given(NamedTuple):
    """A job that an actor was given, and references to what will come of it."""

    job: Job
    reply: Any
    inner: Any


@dataclass
class Answer:
    """What came of a job."""

    reply: Reply
    inner: Any  # packed
    reference: Any  # of that


@dataclass(eq=False)
class Member:
    """An actor."""

    number: int
    handle: Any
    place: Place
    given: list[Given] = field(default_factory=list)  # and not answered yet, in this order
    holds: dict[int, int] = field(default_factory=dict)  # worker → job at whose end its inner state will be there
    dropped: list[int] = field(default_factory=list)  # workers whose inner state is needed there no more
    pace: Optional[float] = None  # seconds per local step, lately; None: not known
    moving: float = 0.0  # seconds that it takes to bring an inner state there, lately

    @property
    def load(self) -> int:
        """Local steps that it has to take."""
        return sum(given.job.steps for given in self.given)

    def __str__(self) -> str:
        return f"actor {self.number} (process {self.place.pid} on node {self.place.address})"


class Crew:
    """Computes jobs in actors; so many of them at most whose results nobody has taken yet: `ahead`.

    A worker's inner state stays in the actor that has trained it, which also sends a copy with every result. So
    another can go on from there: because the worker's own actor has more to do than a move takes, or is dead.
    """

    def __init__(self, cluster: Cluster, count: int, cpus: float, gpus: float) -> None:
        """Have so many actors placed. Raises UserError if the cluster has no room for them in time."""
        self._ray = library()
        self._cluster = cluster
        self.ahead = EACH * count + 1
        self.inner: dict[int, Inner] = {}  # by worker; none of one that had no job yet
        self._agenda = Agenda()
        self._answers: dict[int, Answer] = {}  # by job
        self._starts: dict[int, Any] = {}  # references to vectors in Ray's store, by the id of the tensor here
        self._died = ""  # how the last one did
        self._handles = self._hired(count, cpus, gpus)
        self.members = self._placed()

    def _hired(self, count: int, cpus: float, gpus: float) -> list[Any]:
        """So many actors, spread over the nodes."""
        seat = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD")(Seat)
        return [seat.remote() for _ in range(count)]

    def _placed(self) -> list[Member]:
        asked = [handle.place.remote() for handle in self._handles]
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=PLACED)
        if len(ready) < len(asked):
            raise UserError(
                f"executor.actors: the cluster has found a place for {len(ready)} of {len(asked)} in {PLACED:g} s;"
                " take fewer, or wait until it is less busy"
            )
        places = map(self._begun, asked)
        return [Member(number, handle, place) for number, (handle, place) in enumerate(zip(self._handles, places))]

    def _begun(self, reference: Any) -> Any:
        """What an actor answers that has just begun. Raises UserError if it could not."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            (said, *_) = [line.strip() for line in reversed(str(error).splitlines()) if line.strip()] or [""]
            raise UserError(
                f"executor ray: an actor could not begin ({said}); halos and halos-ray must be installed on all nodes"
            ) from error

    def open(self, task: bytes, device: str, data: dict[str, Any], start: torch.Tensor) -> None:
        """Have every actor open the task. Raises ConfigError where it has not the same `data` and `start` there."""
        reference = self._ray.put(task)
        asked = [member.handle.open.remote(reference, device) for member in self.members]
        for member, answer in zip(self.members, asked):
            node = f"on node {member.place.address}"
            try:
                opened: Opened = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ConfigError):
                    raise ConfigError(error.cause.key, f"{error.cause.problem} ({node})") from None
                if isinstance(error.cause, ImportError):
                    raise UserError(f"executor ray: {error.cause} ({node}); plugins must be installed there") from error
                if isinstance(error.cause, UserError):
                    raise UserError(f"{error.cause} ({node})") from None
                raise error.cause from error
            except self._ray.exceptions.RayError:
                self._begun(answer)
            if opened.data != data:
                raise ConfigError("data", f"{node}, they are others than here: {opened.data} instead of {data}")
            if not torch.equal(unpacked(opened.start), start.cpu()):
                raise ConfigError("model", f"{node}, it begins with other parameters than here")
            if opened.torch != torch.__version__:
                logger.warning("%s has torch %s, and this is %s: %s", node, opened.torch, torch.__version__, "results"
                               " may differ from those of inline in their last bits")  # fmt: skip

    def add(self, job: Job) -> None:
        """Take a job, to be computed when its turn comes; not at once, since the next may be due before it."""
        self._agenda.add(job)

    def answer(self, job: Job) -> Reply:
        """Return what came of a job, once; its worker has the inner state then that it ended with.

        Raises Died if there is no actor left.
        """
        while job.id not in self._answers:
            if not self.members:
                raise Died(f"{self._died}; no other is left")
            if job.id in self._agenda.waiting:
                self._give(self._agenda.waiting[job.id])
            self._give_upcoming()
            self._hear(None)
        found = self._answers.pop(job.id)
        self._agenda.take()
        if found.reply.error is None:
            self.inner[job.worker] = Inner(job.id, found.inner, found.reference)
        self._hear(0.0)
        self._give_upcoming()
        return found.reply

    def _give_upcoming(self) -> None:
        """Give away what may be, in the order in which it is due; what has to wait for its actor lets others pass."""
        for job in self._agenda.upcoming(self.ahead):
            if all(len(member.given) >= EACH for member in self.members):
                return
            self._give(job)

    def _give(self, job: Job) -> bool:
        """Give a job to the actor that has done it soonest; whether there is room for it there."""
        inner = self.inner.get(job.worker)
        member = self._soonest(job, inner)
        if member is None or len(member.given) >= EACH:
            return False
        here = inner is not None and member.holds.get(job.worker) == inner.job
        sent = [] if inner is None or here else [self._reference(inner)]
        order = Order(job[:2] + job[3:], None if inner is None else inner.job, tuple(member.dropped))
        member.dropped.clear()
        for other in self.members:
            if other is not member and other.holds.pop(job.worker, None) is not None:
                other.dropped.append(job.worker)
        member.holds[job.worker] = job.id
        train = member.handle.train.options(num_returns=2)
        self._agenda.give(job)
        member.given.append(Given(job, *train.remote(order, self._start(job), sent)))
        return True

    def _soonest(self, job: Job, inner: Optional[Inner]) -> Optional[Member]:
        """The actor that will have the job done first, whether or not it has room for it now."""
        known = [member.pace for member in self.members if member.pace is not None]
        usual = sum(known) / len(known) if known else 1.0

        def done(member: Member) -> float:
            away = inner is not None and member.holds.get(job.worker) != inner.job
            pace = usual if member.pace is None else member.pace
            return (member.load + job.steps) * pace + (member.moving if away else 0.0)

        return min(self.members, key=done, default=None)

    def _start(self, job: Job) -> Any:
        """A reference to the parameters that a job starts from, which are put into Ray's store once."""
        flat = job.start.flat
        if flat is None:
            raise ValueError("hollow parameters cannot be trained")
        if id(flat) not in self._starts:
            self._starts[id(flat)] = self._ray.put(packed(flat))
            weakref.finalize(flat, self._starts.pop, id(flat), None).atexit = False
        return self._starts[id(flat)]

    def _reference(self, inner: Inner) -> Any:
        if inner.reference is None:
            inner.reference = self._ray.put(inner.values)
        return inner.reference

    def _hear(self, seconds: Optional[float]) -> None:
        """Take all answers there are; wait for one so long, None: until there is one."""
        under_way = {member.given[0].inner: member for member in self.members if member.given}
        if not under_way:
            return
        # Where an actor is on another node, this also brings the inner state here: a worker must survive that node.
        ready, _ = self._ray.wait(list(under_way), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(under_way), num_returns=len(under_way), timeout=0)
        for member in [under_way[each] for each in ready]:
            self._hear_from(member)

    def _hear_from(self, member: Member) -> None:
        """Take the answer of an actor that has one, or is dead."""
        given = member.given[0]
        try:
            reply, inner = self._ray.get([given.reply, given.inner])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            self._bury(member, error)
            return
        member.given.pop(0)
        if reply.params is not None:
            member.pace = _lately(member.pace, reply.seconds / given.job.steps)
        if reply.moving is not None:
            member.moving = _lately(member.moving, reply.moving)
        self._answers[given.job.id] = Answer(reply, inner, given.inner)

    def _bury(self, member: Member, error: Exception) -> None:
        """Take an actor that has died out of the crew; the others compute its jobs."""
        self.members.remove(member)
        self._ray.kill(member.handle)  # if it has only got lost
        for given in member.given:
            self._agenda.take_back(given.job)
        for inner in (*self.inner.values(), *self._answers.values()):
            inner.reference = None  # may have been on its node alone; the values are here
        how = "has ended" if self._cluster.alive(member.place.node) else "is dead, and its node"
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            how = "was ended, since its node was short of memory"
        self._died = f"executor ray: {member} {how}{in_hand(given.job for given in member.given)}"
        if self.members:
            logger.warning("%s; the others train these again" if member.given else "%s", self._died)

    def close(self) -> None:
        """End all actors, at once: they have nothing that anybody will ask for."""
        self._dismiss(self._handles)
        self._handles = []
        self.members = []

    def _dismiss(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            self._ray.kill(handle)


def _lately(before: Optional[float], now: float) -> float:
    """A running mean."""
    return now if before is None else 0.7 * before + 0.3 * now
