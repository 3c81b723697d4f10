"""What a sync policy sees: workers that train, links that carry, a global model that it commits to."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from itertools import islice, product
from typing import Any, Optional, Protocol, TypeVar, Union

from halos.errors import Diverged, UserError
from halos.rules.codecs import Codec
from halos.sim.clock import Clock, Deadlock, Event, Process
from halos.sim.faults.hazards import Hazards
from halos.sim.jobs import Jobs
from halos.sim.ledger import Ledger
from halos.sim.limits import Schedule
from halos.sim.listeners import Listeners
from halos.sim.parts import Parts
from halos.sim.rounds import LrStep, Round, Rounds
from halos.sim.servers import GLOBAL, Servers
from halos.sim.transit.collectives import Collective
from halos.sim.transit.transfers import Transport
from halos.sim.transit.wire import Wire
from halos.values.params import Params
from halos.values.records import Contribution, Evaluation, Update
from halos.world.cluster import Region, Worker
from halos.world.faults import Outage, outages

T = TypeVar("T")


class SyncPolicy(Protocol):
    """Who trains from what, when, and how it is merged: a process over virtual time."""

    async def run(self, sim: Simulation) -> None:
        """The whole of training; it is closed when the budget is spent."""
        ...


class Simulation:
    """One run. `train`, `send`, `all_reduce` return an event already under way; awaiting it is blocking on it."""

    def __init__(self, parts: Parts, params: Params) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.done = False
        self._parts = parts
        self._tell = Listeners(parts.hook, parts.tape, parts.components)
        self._servers = Servers(params, parts.tape)
        wire = Wire(parts.codec, params, parts.wire_bytes)
        self._budget_steps = parts.budget.steps(parts.tokens_per_step)
        self._hazards = None if parts.faults is None else Hazards(parts.faults)
        self.jobs = Jobs(
            clock=self.clock,
            cluster=parts.cluster,
            network=parts.network,
            compute=parts.compute,
            weights=parts.weights,
            executor=parts.executor,
            order=parts.order,
            wire=wire,
            ledger=self.ledger,
            tell=self._tell,
            batch_size=parts.batch_size,
            global_batch_size=parts.global_batch_size,
            patience=4 * self._budget_steps,
            hazards=self._hazards,
        )
        self._rounds = Rounds(
            lambda: [self.steps(worker) for worker in self.workers],
            parts.batch_size,
            parts.global_batch_size,
            self._budget_steps,
            self.ledger,
        )
        self._transport = Transport(self.clock, parts.cluster, parts.network, wire, self._tell, self._hazards)
        self._schedule = Schedule(parts.evaluate_every)
        self._evaluated = -1  # the serial of the global parameters last evaluated

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
    def reducing(self) -> Optional[float]:
        """Since when a collective is under way, if one is."""
        return self._transport.reducing

    @property
    def lost_collective(self) -> Optional[str]:
        """Why a collective was lost, the last one if several were."""
        return self._transport.lost

    @property
    def closing(self) -> bool:
        """Whether no more rounds will be opened."""
        return self._rounds.closed

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def run(self, policy: SyncPolicy, between: Optional[Callable[[], None]] = None) -> None:
        """Let `policy` train until the budget is spent or it returns; evaluates at the start and at the end.

        `between` is called before every timed event.
        """
        self._tell.bind()
        if self._evaluate_global():  # as good as wanted before it began
            self.done = True
            return
        self.clock.spawn(policy.run(self))
        try:
            self.clock.run(self._parts.budget.seconds, between)
        except Deadlock as error:
            raise type(error)(f"{error}{self._gone()}") from None
        finally:
            self.done = True
            self.clock.close()
        if self._evaluated != self.params.serial:
            self._evaluate_global()

    def lost(self) -> dict[str, int]:
        """How many jobs and messages faults have taken; of the latter, those of jobs as well."""
        return {"jobs": self.jobs.lost, "messages": 0 if self._hazards is None else self._hazards.lost_messages}

    def outages(self) -> list[Outage]:
        """When workers were down so far."""
        return [] if self._parts.faults is None else list(outages(self._parts.faults, self.workers, self.now))

    def _gone(self) -> str:
        """For a message: which workers and links are down for ever."""
        hazards, now = self._hazards, self.now
        if hazards is None:
            return ""
        workers = [str(each.id) for each in self.workers if hazards.back(each, now) == math.inf]
        pairs = product(range(len(self.regions)), repeat=2)
        links = list(islice((f"{a}->{b}" for a, b in pairs if hazards.up(a, b, now) == math.inf), 11))
        return "".join(
            f"; {what} {', '.join(gone[:10])}{', …' if len(gone) > 10 else ''} are down for ever"
            for what, gone in (("workers", workers), ("links", links))
            if gone
        )

    def rounds(self) -> Iterator[Round]:
        """The rounds still to open, from the first; whoever asks, the same rounds.

        A round is opened or refused once, for all, when first asked for: refused as soon as the
        rounds before it (or the jobs dispatched) make up the budget's local steps.
        """
        return self._rounds.each(lambda: math.inf if self.done else self.jobs.dispatched)

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
        round: Optional[Round] = None,
        gradient: bool = False,
    ) -> Event[Update]:
        """A job of `worker` from `start`; the event happens when its update is there.

        Steps and learning-rate step are those of its `round` (synchronous policies pass it), unless
        given; without either, the allocation's steps and the learning-rate clock of the dispatch
        (now), as samples always are. Without `server` it takes the compute time. With a `server`
        region it is an asynchronous round trip, pull + compute + push as one duration, and the pushed
        difference passes the codec. With `gradient` the worker steps nowhere: the update's delta is the
        gradient at `start`, the mean over as many batches as there are steps.
        """
        mean_steps = None
        if round is not None:
            steps = round.steps[worker.id] if steps is None else steps
            lr_step = round.lr_step if lr_step is None else lr_step
            mean_steps = round.mean_steps
        elif steps is None:
            steps = self._parts.steps.steps(worker, self)
        if isinstance(lr_step, tuple):
            lr_step = lr_step[worker.id]
        region = None if server is None else _index(server)
        if gradient and region is not None:
            raise ValueError("a gradient is asked for without a server")
        if gradient and not hasattr(self._parts.executor, "step"):
            raise UserError("executor: this one computes no gradients (it has no method `step`); inline and timing do")
        versions = start.versions
        if GLOBAL in versions:
            version = versions[GLOBAL]
        else:  # of the only server it was committed to, if any
            version = next(iter(versions.values())) if versions else self.version
        return self.jobs.start(
            worker,
            start,
            steps,
            version,
            region=region,
            lr_step=lr_step,
            mean_steps=mean_steps,
            gradient=gradient,
        )

    def inner_step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        """`params` after one step of the inner optimizer along `gradient`; its state belongs to no worker. No time."""
        stepped: Params = getattr(self._parts.executor, "step")(params, gradient, lr_step)  # noqa: B009
        return stepped

    def exchange_seconds(self, worker: Worker, server: Union[Region, int, None] = None) -> float:
        """How long a whole model's exchange would take now: a pull and a push, or, without a server, an all-reduce."""
        return self._transport.exchange_seconds(worker.region, None if server is None else _index(server))

    def send(
        self,
        payload: Params,
        src: Union[Region, int],
        dst: Union[Region, int],
        codec: Optional[Codec] = None,
        sender: Hashable = None,
    ) -> Event[Params]:
        """A transfer from region to region; its value is the payload as decoded at the other end.

        The configured codec is made for differences; pass `codec=FP32` for a model. `sender` is whoever sends
        (a worker's id, a server's name), if there are several in a region: error feedback is each one's own.
        """
        return self._transport.send(payload, _index(src), _index(dst), codec, sender)

    def all_reduce(
        self, payloads: Iterable[Params], codec: Optional[Codec] = None, workers: Optional[Iterable[Worker]] = None
    ) -> Event[Params]:
        """The mean of all payloads, one per participant: one collective, after those opened before it.

        Payloads are summed as they are iterated over, so a generator saves holding them all. `workers` says
        whose they are, where that is not all of them in order (codecs with error feedback need to know).
        """
        senders = None if workers is None else [worker.id for worker in workers]
        return self._transport.all_reduce(payloads, codec, senders)

    def collective(self, key: Hashable, members: Optional[int] = None, codec: Optional[Codec] = None) -> Collective:
        """The collective of that name, which all workers (or `members` of them) join one by one."""
        return self._transport.collective(key, members, codec)

    def returned(self, worker: Worker, server: Union[Region, int, None] = None) -> Event[None]:
        """When `worker` is up, and the links between it and its `server` are: now, unless a fault keeps one down."""
        region = None if server is None else _index(server)
        return self._at(self.now if self._hazards is None else self._hazards.back(worker, self.now, region))

    def reachable(self, src: Union[Region, int], dst: Union[Region, int]) -> Event[None]:
        """When the link from region to region is up: now, unless a fault keeps it down."""
        hazards, now = self._hazards, self.now
        return self._at(now if hazards is None else hazards.up(_index(src), _index(dst), now))

    def _at(self, time: float) -> Event[None]:
        """The moment `time`, which may never come."""
        return self.clock.timeout(time - self.now)

    def up(self, worker: Worker, since: Optional[float] = None) -> bool:
        """Whether `worker` is up, and has been so since then: what it had and did not deliver is gone otherwise."""
        start = self.now if since is None else since
        return self._hazards is None or self._hazards.stays_up(worker, start, self.now)

    def delivers(self, update: Update) -> bool:
        """Whether this update arrives at a collective that its worker brings it to now; asked once for each message.

        One that does not stays with its worker, and does not count towards the budget until it is committed.
        """
        if self._hazards is None or self._hazards.delivers():
            return True
        self.ledger.miss(update)
        return False

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

    def scalar(self, compute: Callable[[], float]) -> float:
        """A number out of parameters to branch on, as in `sim.scalar(delta.norm)`: a resumed run is told it again."""
        return self._parts.tape.number(compute)

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

    def _evaluate_global(self) -> bool:
        """Evaluate the global model; whether it has reached the target loss."""
        self._evaluated = self.params.serial
        losses = self.evaluate(self.params)
        target = self._parts.budget.target_loss
        return target is not None and losses.get("validation", float("inf")) <= target

    def _finish(self) -> None:
        self.done = True
        self.clock.stop()


def _index(region: Union[Region, int]) -> int:
    return region.index if isinstance(region, Region) else region
