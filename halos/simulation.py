"""What a sync policy sees: workers that train, links that carry, a global model that it commits to."""

from __future__ import annotations

import logging
import math
from collections.abc import Coroutine, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional, Protocol, TypeVar, Union

import pluggy

from halos.budget import BudgetOptions
from halos.clock import Clock, Event, Process
from halos.cluster import Cluster, Region, Worker
from halos.codecs import Codec
from halos.collectives import Collective, Collectives, Reduction
from halos.compute import ComputeModel
from halos.data.order import DataOrder
from halos.errors import Diverged
from halos.evaluation import Schedule
from halos.executors import Executor, Job
from halos.ledger import Ledger
from halos.listeners import Listeners
from halos.network import NetworkModel
from halos.params import Params, mean
from halos.records import Contribution, Evaluation, Transfer, Update
from halos.rounds import LrStep, Round, Rounds
from halos.servers import GLOBAL, Servers
from halos.steps import StepAllocation
from halos.weights import ContributionWeights

logger = logging.getLogger(__name__)
T = TypeVar("T")


class SyncPolicy(Protocol):
    """Who trains from what, when, and how it is merged: a process over virtual time."""

    async def run(self, sim: Simulation) -> None:
        """The whole of training; it is closed when the budget is spent."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a simulation is made of."""

    cluster: Cluster
    network: NetworkModel
    compute: ComputeModel
    steps: StepAllocation
    weights: ContributionWeights
    codec: Codec
    executor: Executor
    order: DataOrder
    budget: BudgetOptions
    batch_size: int
    global_batch_size: int
    tokens_per_step: int
    wire_bytes: Optional[int]  # of the whole model in fp32; None: four bytes per parameter
    evaluate_every: Optional[int]
    evaluation_sets: tuple[str, ...]
    hook: pluggy.HookRelay


class Simulation:
    """One run. `train`, `send`, `all_reduce` return an event already under way; awaiting it is blocking on it."""

    def __init__(self, parts: Parts, params: Params) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.done = False
        # worker → when its job began, computes from, and computes until
        self.running: dict[int, tuple[float, float, float]] = {}
        self.reducing: Optional[float] = None  # since when a collective is under way
        self._parts = parts
        self._servers = Servers(params)
        self._budget_steps = parts.budget.steps(parts.tokens_per_step)
        self._rounds = Rounds(
            lambda: [self.steps(worker) for worker in self.workers],
            parts.batch_size,
            parts.global_batch_size,
            self._budget_steps,
        )
        self._lossless = parts.codec.roundtrip(params) is params
        self._model_bytes = self._scaled(4 * params.size)
        self._lossless_bytes = self._wire_bytes(params, parts.codec)
        self._collectives = Collectives(self.clock, self._reduce, self._all_reduce)
        self._schedule = Schedule(parts.evaluate_every)
        self._patience = 4 * self._budget_steps  # trained steps after which something should be committed
        self._evaluated = -1  # the serial of the global parameters last evaluated
        self._dispatched = 0
        self._jobs = 0
        self._latest: dict[int, int] = {}  # steps of each worker's latest job
        self._latest_sum = 0

    @property
    def workers(self) -> tuple[Worker, ...]:
        return self._parts.cluster.workers

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._parts.cluster.regions

    @property
    def params(self) -> Params:
        """The global parameters as last committed."""
        return self._servers.globally.params

    @property
    def version(self) -> int:
        """The version of the global parameters: their commits so far that brought contributions in."""
        return self._servers.globally.version

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def run(self, policy: SyncPolicy) -> None:
        """Let `policy` train until the budget is spent or it returns; evaluates at the start and at the end."""
        self._tell = Listeners(self._parts.hook)
        if self._evaluate_global():  # as good as wanted before it began
            self.done = True
            return
        self.clock.spawn(policy.run(self))
        try:
            self.clock.run(until=self._parts.budget.seconds)
        finally:
            self.done = True
            self.clock.close()
        if self._evaluated != self.params.serial:
            self._evaluate_global()

    def rounds(self) -> Iterator[Round]:
        """The rounds still to open, from the first; whoever asks, the same rounds.

        A round is opened or refused once, for all, when first asked for: refused as soon as the
        rounds before it (or the jobs dispatched) make up the budget's local steps.
        """
        return self._rounds.each(lambda: math.inf if self.done else self._dispatched)

    def steps(self, worker: Worker) -> int:
        """Local steps of the worker's next job, as the step allocation has it."""
        return self._parts.steps.steps(worker, self)

    def train(
        self,
        worker: Worker,
        start: Params,
        steps: Optional[int] = None,
        *,
        server: Union[Region, int, None] = None,
        lr_step: LrStep = None,
    ) -> Event[Update]:
        """A job of `worker` from `start`; the event happens when its update is there.

        `steps` is the allocation's unless given. Without `server` it takes the compute time. With a
        `server` region it is an asynchronous round trip, pull + compute + push as one duration, and
        the pushed difference passes the codec. Samples and learning-rate step are those of the
        dispatch (now); `lr_step` replaces the latter (synchronous policies pass their round's).
        """
        if worker.id in self.running:
            raise RuntimeError(f"worker {worker.id} already has a job (one at a time)")
        parts, now = self._parts, self.clock.now
        count = parts.steps.steps(worker, self) if steps is None else steps
        if count < 1:
            raise ValueError(f"worker {worker.id} is to take {count} local steps; a job has at least one")
        lr_clock = parts.order.taken // parts.global_batch_size
        if isinstance(lr_step, tuple):
            lr_clock = lr_step[worker.id]
        elif lr_step is not None:
            lr_clock = lr_step
        dealt = parts.order.take(worker, count * parts.batch_size)
        job = Job(self._jobs, worker.id, start, count, dealt.shard, dealt.first, dealt.end, lr_clock, now)
        self._jobs += 1
        self._dispatched += count
        self._latest_sum += count - self._latest.get(worker.id, 0)
        self._latest[worker.id] = count
        pull, push, push_bytes = 0.0, 0.0, 0
        region = server.index if isinstance(server, Region) else server
        if region is not None:
            push_bytes = self._lossless_bytes if self._lossless else self._wire_bytes(start, parts.codec)
            pull, push = parts.network.round_trip(self._model_bytes, push_bytes, region, worker.region, now)
        compute = parts.compute.seconds(worker, count, now + pull, job.id)
        duration = compute
        if region is not None:
            duration = pull + push + compute + worker.id * parts.cluster.tie_break
        self.running[worker.id] = (now, now + pull, now + pull + compute)
        versions = start.versions  # of the global server's, or of the only server it was committed to
        version = versions.get(GLOBAL, next(iter(versions.values()))) if versions else self.version
        parts.executor.submit(job)
        return self.clock.timeout(duration, partial(self._arrive, worker, job, region, version, push, push_bytes))

    def send(
        self, payload: Params, src: Union[Region, int], dst: Union[Region, int], codec: Optional[Codec] = None
    ) -> Event[Params]:
        """A transfer from region to region; its value is the payload as decoded at the other end."""
        codec = codec or self._parts.codec
        source, target = (each.index if isinstance(each, Region) else each for each in (src, dst))
        start, nbytes = self.clock.now, self._wire_bytes(payload, codec)

        def arrive() -> Params:
            self._tell.transfer(Transfer(start, self.clock.now, source, target, nbytes, "send"))
            return codec.roundtrip(payload)

        return self.clock.timeout(self._parts.network.transfer(nbytes, source, target, start), arrive)

    def all_reduce(self, payloads: Iterable[Params], codec: Optional[Codec] = None) -> Event[Params]:
        """The mean of all payloads, one per participant: one collective, after those opened before it.

        Payloads are summed as they are iterated over, so a generator saves holding them all.
        """
        return self._collectives.all_at_once(payloads, codec or self._parts.codec)

    def collective(self, key: Hashable, members: Optional[int] = None, codec: Optional[Codec] = None) -> Collective:
        """The collective of that name, which all workers (or `members` of them) join one by one."""
        return self._collectives.open(members or len(self.workers), codec or self._parts.codec, key)

    def sleep(self, seconds: float) -> Event[None]:
        """Nothing but time."""
        return self.clock.timeout(seconds)

    def spawn(self, coroutine: Coroutine[Event[Any], None, T]) -> Process[T]:
        """Another process beside this one; an event too, to await its end."""
        return self.clock.spawn(coroutine)

    def commit(
        self, params: Params, contributions: Iterable[Union[Update, Contribution]], *, server: str = GLOBAL
    ) -> bool:
        """A server's model is now `params`.

        A plain update was computed from its start and is applied to the server's previous model;
        where that is not so, a Contribution says what it was. Without contributions it is a merge
        with another server's model, and the version stays. Only `global` moves `sim.params` and
        the budget: the commit that crosses it counts whole and ends the run, later ones are ignored.
        Returns whether the model was evaluated, for policies that have more of them to evaluate.
        """
        if self.done:
            return False
        commit = self._servers.commit(server, params, contributions, self.now)
        if server == GLOBAL:
            for share in commit.shares:
                self.ledger.commit(share.updates)
        self._tell.commit(commit)
        if server != GLOBAL:
            return False
        over = commit.local_steps >= self._budget_steps
        due = self._schedule.due(commit.local_steps) or over
        if (due and self._evaluate_global()) or over:
            self._finish()
        return due

    def drop(self, updates: Iterable[Update]) -> None:
        """These updates will not be used; their steps are reported as dropped."""
        if isinstance(updates, Update):
            raise TypeError("updates are a list, also when there is one")
        self.ledger.drop(updates)

    def evaluate(self, params: Params, of: str = GLOBAL) -> dict[str, float]:
        """Losses by evaluation set, recorded as those of `of`; takes no virtual time. Empty in timing mode."""
        losses, finite = {}, True
        for name in self._parts.evaluation_sets:
            loss = self._parts.executor.evaluate(params, name)
            if loss is not None:
                losses[name] = loss
                finite = finite and math.isfinite(loss)
                tokens = self.ledger.trained * self._parts.tokens_per_step
                counts = (self.version, self._servers.globally.local_steps, self.ledger.trained, tokens)
                self._tell.evaluate(Evaluation(self.now, *counts, loss, name, of))
        if not finite:
            raise Diverged(
                f"evaluation loss of the {of} model became {losses} at {self.now:.6g} simulated seconds, after"
                f" {self._servers.globally.local_steps} committed local steps (version {self.version})"
            )
        return losses

    def _arrive(
        self,
        worker: Worker,
        job: Job,
        region: Optional[int],
        version: int,
        push: float,
        push_bytes: int,
    ) -> Update:
        parts, tell, now = self._parts, self._tell, self.clock.now
        start_time, computes, until = self.running.pop(worker.id)
        params, losses, chunks = parts.executor.result(job)
        if region is not None:
            if not self._lossless:
                params = job.start - parts.codec.roundtrip(job.start - params)
            pulled = Transfer(start_time, computes, region, worker.region, self._model_bytes, "pull", worker.id, region)
            tell.transfer(pulled)
            pushed = Transfer(now - push, now, worker.region, region, push_bytes, "push", worker.id, region)
            tell.transfer(pushed)
        update = Update(
            id=job.id,
            worker=worker.id,
            region=worker.region,
            start=job.start,
            params=params,
            steps=job.steps,
            start_time=start_time,
            time=now,
            start_version=version,
            samples=(job.first_sample, job.end_sample),
            lr_step=job.lr_step,
            losses=losses,
            chunks=chunks,
            compute=(computes, until),
            server=region,
            factor=parts.weights.factor(job.steps, self._latest_sum / len(self._latest)),
        )
        self.ledger.add(update)
        if self.ledger.trained > self._patience and self._jobs > 64 * len(self.workers):  # no first long round
            self._patience = math.inf
            if not self.ledger.committed:
                logger.warning(
                    "%d local steps trained, several times the budget, and none committed: has the policy forgotten"
                    " sim.commit?",
                    self.ledger.trained,
                )
        tell.update(update)
        return update

    def _reduce(self, payloads: Iterable[Params], codec: Codec) -> Reduction:
        """The mean, summed in the order given; holds one payload at a time if `payloads` are made one at a time."""
        members = nbytes = 0

        def decoded() -> Iterator[Params]:
            nonlocal members, nbytes
            for payload in payloads:
                members += 1
                nbytes = max(nbytes, self._wire_bytes(payload, codec))
                yield codec.roundtrip(payload)

        average = mean(decoded())
        return Reduction(average, nbytes, members)

    def _all_reduce(self, reduction: Reduction) -> Event[Params]:
        start = self.reducing = self.clock.now

        def arrive() -> Params:
            self.reducing = None
            crossing = 2 * (reduction.members - 1) * reduction.bytes  # what a ring's links carry, all together
            self._tell.transfer(Transfer(start, self.clock.now, None, None, crossing, "all_reduce"))
            return reduction.mean

        return self.clock.timeout(self._parts.network.all_reduce(reduction.bytes, reduction.members, start), arrive)

    def _wire_bytes(self, payload: Params, codec: Codec) -> int:
        return self._scaled(codec.wire_bytes(payload))

    def _scaled(self, nbytes: int) -> int:
        """Bytes as the link sees them: in proportion, if the whole model is said to weigh `wire_bytes`."""
        if self._parts.wire_bytes is None:
            return nbytes
        return round(nbytes * self._parts.wire_bytes / (4 * self.params.size))

    def _evaluate_global(self) -> bool:
        """Evaluate the global model; whether it has reached the target loss."""
        self._evaluated = self.params.serial
        losses = self.evaluate(self.params)
        target = self._parts.budget.target_loss
        return target is not None and losses.get("validation", float("inf")) <= target

    def _finish(self) -> None:
        self.done = True
        self.clock.stop()
