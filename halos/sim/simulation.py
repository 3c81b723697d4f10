"""The simulation as a sync policy sees it: workers that train, links that carry, a global model to commit to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Optional, Protocol, TypeVar, Union

from halos.errors import UserError
from halos.rules.aggregate import Mean
from halos.rules.codecs import Codec
from halos.rules.telling import telling
from halos.sim.clock import Clock, Deadlock, Event, Process
from halos.sim.evaluations import Evaluations
from halos.sim.faults.hazards import hazards_of
from halos.sim.faults.losses import Losses
from halos.sim.faults.watch import Watch
from halos.sim.jobs import Jobs
from halos.sim.ledger import Ledger
from halos.sim.limits import Limits
from halos.sim.listeners import Listeners
from halos.sim.lr_clock import LrClock, LrStep
from halos.sim.origins import Origins
from halos.sim.parts import Parts
from halos.sim.probes import Probes
from halos.sim.rounds import Round, Rounds
from halos.sim.servers import Servers
from halos.sim.transit.collectives import Collective, Collectives
from halos.sim.transit.journeys import Journeys, has_flows
from halos.sim.transit.transfers import Transfers
from halos.sim.transit.trips import Trips
from halos.sim.transit.wire import Wire
from halos.values.params import Params
from halos.values.records import GLOBAL, Contribution, Update
from halos.world.cluster import Region, Worker, region_index

T = TypeVar("T")
logger = logging.getLogger(__name__)


class SyncPolicy(Protocol):
    """A synchronisation algorithm: decides who trains from what, when, and how it is merged, over virtual time."""

    async def run(self, sim: Simulation) -> None:
        """Train, awaiting events of `sim`, until there is nothing left to do. Closed when the budget is spent.

        An exception that it lets through ends the run.
        """
        ...


class Simulation:
    """One run. `train`, `send` and `all_reduce` return an event that is already under way; to block, await it."""

    def __init__(self, parts: Parts, params: Params) -> None:
        cluster, network = parts.cluster, parts.network
        self.clock = Clock()
        self.ledger = Ledger()
        self.done = False  # whether the budget is spent
        self._parts = parts
        self._tell = Listeners(parts.hook, parts.aside, parts.components)
        self.between_records = self._tell.between
        self._origins = Origins(parts.record)
        self._servers = Servers(params, self._origins.take, parts.real)
        sends = getattr(parts.faults, "sends", None)
        self._wire = Wire(parts.codec, params, parts.wire_bytes, parts.aggregate, sends)
        hazards = hazards_of(parts.faults)
        workers = len(cluster.workers)
        self.limits = Limits(
            parts.budget,
            parts.tokens_per_step,
            parts.evaluate.every_local_steps,
            workers,
            self.ledger,
            hazards.unreliable,
        )
        self.losses = Losses(parts, self.clock, hazards, self.ledger, self._forget)
        self.faults = Watch(cluster, self.clock, hazards, self.losses, self.ledger)
        lr_clock = LrClock(parts.batch_size, parts.global_batch_size)
        self._journeys = Journeys(self.clock, network, hazards) if has_flows(network) else None
        trips = None if self._journeys is None else Trips(self.clock, self._journeys, hazards, self._wire)
        self.jobs = Jobs(
            parts,
            self.clock,
            self._wire,
            self.ledger,
            self.limits,
            self._tell,
            self.losses,
            lr_clock,
            self._origins,
            self._servers.version_at,
            trips,
        )
        self._rounds = Rounds(
            lambda: [self.steps(worker) for worker in self.workers],
            lr_clock,
            self.limits.spent,
            self.ledger,
            parts.seed,
        )
        self._transfers = Transfers(self.clock, network, self._wire, self._tell, hazards, self._journeys)
        self.collectives = Collectives(
            self.clock, cluster, network, self._wire, self._tell, hazards, self._journeys, self.drop
        )
        self.probes = Probes(parts.executor, parts.order, cluster, self.ledger, self._wire.lossless)  # for observers
        self._events: dict[Hashable, Event[Any]] = {}
        self.evaluations = Evaluations(parts, self.clock, self.ledger, self._servers, self.jobs, self._tell)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All workers, in order of id."""
        return self._parts.cluster.workers

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions, in order of index."""
        return self._parts.cluster.regions

    @property
    def seed(self) -> int:
        """The run's seed, for a policy that draws: `own_seed(self, sim.seed)`, if it has a field `seed`."""
        return self._parts.seed

    @property
    def params(self) -> Params:
        """The global parameters as last committed."""
        return self._servers.main.params

    @property
    def version(self) -> int:
        """The version of the global parameters: their commits so far that brought contributions in."""
        return self._servers.main.version

    @property
    def closing(self) -> bool:
        """Whether a round was refused: `rounds` gives no more."""
        return self._rounds.closed

    @property
    def now(self) -> float:
        """The virtual time, in seconds since the start of the run."""
        return self.clock.now

    def run(self, policy: SyncPolicy, between: Optional[Callable[[], None]] = None) -> None:
        """Let `policy` train until the budget is spent or it returns; evaluates at the start and at the end.

        `between` is called before every timed event. Raises Deadlock if the policy's processes wait and nothing is
        left to happen, Diverged for a loss that is not finite, and whatever the policy raises.
        """
        self._tell.bind()
        if self._evaluate():  # as good as wanted before it began
            self.done = True
            return
        self._tell.bind()  # again: who had to be called aside for checkpoints may not have to any more
        if self._parts.evaluate.every_seconds is not None:
            between = partial(self._between, between)
        merges = self._tell.merge
        told = nullcontext() if merges is None else telling(policy, lambda: self.clock.now, merges)
        self.clock.spawn(policy.run(self))
        try:
            with told:
                self.clock.run(self.limits.seconds, between)
        except Deadlock as error:
            held_up = "" if self._journeys is None else self._journeys.words()
            raise type(error)(f"{error}{self.faults.gone()}{held_up}") from None
        finally:
            self.done = True
            self.clock.close()
        self.evaluations.now(again=False)
        self._warn_of_what_had_no_part()
        for name in self.evaluations.missing:
            logger.warning("evaluate.of: there were no %s in this run", name.replace("_", " "))

    def rounds(self, fraction: float = 1.0) -> Iterator[Round]:
        """The rounds still to open, from the first; whoever asks, the same rounds.

        A round is opened or refused once, for all, when first asked for: refused as soon as the
        rounds before it (or the jobs dispatched) make up the budget's local steps. With a `fraction`, only so many of
        the workers take part in each, rounded, at least one, drawn anew by the run's seed: its `members`. Of a round,
        the first to ask decides.
        """
        return self._rounds.each(lambda: math.inf if self.done else self.jobs.dispatched, fraction)

    def skip(self, round: Round, worker: Worker) -> None:
        """Say, once, that `worker` gets no job in `round`, which is open: other rounds make up for its steps."""
        self._rounds.skip(round, worker)

    def steps(self, worker: Worker) -> int:
        """Ask the step allocation (`steps:`) for the local steps of the worker's next job."""
        return self._parts.steps.steps(worker, self)

    def steps_until(self, worker: Worker, moment: float) -> int:
        """Return the fewest local steps, at least one, of a job that a worker begins now and ends at `moment` or later.

        As the compute model has it, faults aside. Raises UserError for a moment that no number of steps gets to.
        """
        return self.jobs.steps_until(worker, moment)

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
        """Start a job of `worker` from `start`; the event happens when its update is there.

        Steps and learning-rate step are those of its `round` (synchronous policies pass it), unless
        given; without either, the allocation's steps and the learning-rate clock of the dispatch
        (now), as samples always are. Without `server` it takes the compute time. With a `server`
        region it is an asynchronous round trip, pull + compute + push as one duration, and the pushed
        difference passes the codec. With `gradient` the worker steps nowhere: the update's delta is the
        gradient at `start`, the mean over as many batches as there are steps.

        Raises at once: RuntimeError if the worker is busy (one job at a time), ValueError for no steps or a
        `gradient` with a `server`, UserError if the executor computes no gradients. The event raises Lost, at the
        moment at which that is detected, if a fault takes the job or its message; Diverged if its loss is not finite.
        """
        if round is not None:
            steps = round.steps[worker.id] if steps is None else steps
            lr_step = round.lr_step if lr_step is None else lr_step
        elif steps is None:
            steps = self._parts.steps.steps(worker, self)
        if isinstance(lr_step, tuple):
            lr_step = lr_step[worker.id]
        region = None if server is None else region_index(server)
        if gradient and region is not None:
            raise ValueError("a gradient is asked for without a server")
        if gradient and not hasattr(self._parts.executor, "step"):
            raise UserError("executor: this one computes no gradients (it has no method `step`); inline and timing do")
        versions = start.versions
        global_version = versions.get(GLOBAL)
        version = global_version
        if versions and global_version is None:  # of the only server it was committed to
            version = next(iter(versions.values()))
        return self.jobs.start(
            worker,
            start,
            steps,
            version,
            global_version,
            region=region,
            lr_step=lr_step,
            round=round,
            gradient=gradient,
        )

    def weigh(self, updates: Iterable[Union[Update, Sequence[Update]]]) -> list[Update]:
        """Return the updates as `weights:` weighs them among each other: those that are about to be averaged.

        An update comes weighed among all workers of its round (or, without a round, among their latest jobs), of whom
        not everybody may be heard. Who brings several, those of jobs one after the other, is weighed by all of their
        steps; returned is the last, of which `since` gives the difference.
        """
        return self.jobs.weigh([[each] if isinstance(each, Update) else each for each in updates])

    def inner_step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        """Return `params` after one step of the inner optimizer along `gradient`; takes no virtual time.

        The optimizer's state is no worker's. `lr_step` counts the learning-rate steps before.
        """
        stepped: Params = getattr(self._parts.executor, "step")(params, gradient, lr_step)  # noqa: B009
        return stepped

    def learning_rate(self, lr_step: int) -> float:
        """Return the inner optimizer's rate in the first local step of a job that begins at `lr_step`, by `train:`."""
        return self._parts.rate(lr_step + 1)

    def samples(self, worker: Worker) -> Optional[float]:
        """Return how many training samples are the worker's: of its shard, in equal parts of all workers that share it.

        None if the executor does not know, as where nothing is trained.
        """
        sizes: Optional[Callable[[], Optional[list[int]]]] = getattr(self._parts.executor, "shard_sizes", None)
        known = None if sizes is None else sizes()
        if known is None:
            return None
        shards = [self._parts.order.shard(other) for other in self.workers]
        return known[shards[worker.id]] / shards.count(shards[worker.id])

    def exchange_seconds(self, worker: Worker, server: Union[Region, int, None] = None) -> float:
        """Seconds that a whole model's exchange would take now: pull and push, or without a server an all-reduce."""
        if server is None:
            return self.collectives.whole_model_seconds()
        return self._transfers.round_trip_seconds(region_index(server), worker.region)

    def links(self) -> Optional[dict[str, dict[str, Optional[float]]]]:
        """Return what each link has carried so far, by name, under a network whose links are shared; else None.

        `bytes`, and `utilisation`: the share of what it could have carried, None of an infinite bandwidth.
        """
        return None if self._journeys is None else self._journeys.links()

    def send(
        self,
        payload: Params,
        src: Union[Region, int],
        dst: Union[Region, int],
        codec: Optional[Codec] = None,
        sender: Hashable = None,
    ) -> Event[Params]:
        """Send `payload` from region to region; the event's value is the payload as decoded at the other end.

        The configured codec is made for differences; pass `codec=FP32` for a model. `sender` is whoever sends
        (a worker's id, a server's name), if there are several in a region: error feedback is each one's own.
        The event raises Lost, when that is detected, if the message is lost or its link goes down.
        """
        return self._transfers.send(payload, region_index(src), region_index(dst), codec, sender)

    def all_reduce(
        self,
        payloads: Iterable[Params],
        codec: Optional[Codec] = None,
        workers: Optional[Iterable[Worker]] = None,
        weights: Optional[Iterable[float]] = None,
    ) -> Event[Params]:
        """Start a collective of one payload per participant, after those opened before it; it ends with what
        `aggregate:` makes of them: their mean, or, with relative `weights`, that.

        The mean sums payloads as they are iterated over, so a generator saves holding them all. `workers` says
        whose they are, where that is not all of them in order (codecs with error feedback need to know). The event
        raises Lost, when that is detected, if a member is down or a message to it does not arrive. Raises ValueError
        at once if there are no payloads, if they are of different sizes, or for a weight that is not positive.
        """
        senders = None if workers is None else [worker.id for worker in workers]
        return self.collectives.all_reduce(payloads, codec, senders, weights)

    def collective(self, key: Hashable, members: Optional[int] = None, codec: Optional[Codec] = None) -> Collective:
        """Return the collective named `key`, which all workers (or `members` of them) join one by one.

        The first to ask opens it, and its `members` and `codec` are those that count. Raises RuntimeError for one that
        is over.
        """
        return self.collectives.open(key, members, codec)

    def sleep(self, seconds: float) -> Event[None]:
        """Return an event `seconds` of virtual time from now. Raises ValueError for a negative time."""
        return self.clock.timeout(seconds)

    def at(self, moment: float, last: bool = False) -> Event[None]:
        """Return an event at that very `moment`, in virtual seconds: for one that is known, rather than how far it is.

        With `last` it happens after all that is due then, also by a rounding error later: the end of a period. Raises
        ValueError for a moment that is over.
        """
        return self.clock.at(moment, last=last)

    def event(self, key: Hashable) -> Event[Any]:
        """Return the event named `key`, the same for all who ask: one process lets it `succeed`, others await it.

        It is made for whoever asks first, and kept, with its value, until `forget`.
        """
        if key not in self._events:
            self._events[key] = Event(self.clock)
        return self._events[key]

    def forget(self, key: Hashable) -> None:
        """Give up the event named `key`, if there is one; who awaits it already goes on doing so."""
        self._events.pop(key, None)

    def spawn(self, coroutine: Coroutine[Event[Any], None, T]) -> Process[T]:
        """Start another process beside this one; await it for what it returns or raises.

        What it raises while nobody awaits it ends the run.
        """
        return self.clock.spawn(coroutine)

    def commit(
        self, params: Params, contributions: Iterable[Union[Update, Contribution]], *, server: str = GLOBAL
    ) -> bool:
        """Make `params` the model of `server`, and bring `contributions` in. Does nothing once the budget is spent.

        A plain update was computed from its start and is applied to the server's previous model;
        where that is not so, a Contribution says what it was. Without contributions it is a merge
        with another server's model, and the version stays. Only `global` moves `sim.params` and
        the budget: the commit that crosses it counts whole and ends the run, later ones are ignored.
        Returns whether the model was evaluated, for policies that have more of them to evaluate. Raises RuntimeError
        if `global` takes in an update that was committed or dropped before, TypeError for a lone contribution.
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
        over = self.limits.spent(commit.local_steps, self._trained())
        due = self.limits.due(commit.local_steps) or over
        if (due and self._evaluate()) or over:
            self._finish()
        return due

    def drop(self, updates: Iterable[Update]) -> None:
        """Give these updates up; their steps are reported as dropped.

        Raises RuntimeError for one that was committed or dropped before, TypeError for a lone update.
        """
        if isinstance(updates, Update):
            raise TypeError("updates are a list, also when there is one")
        updates = list(updates)
        self.ledger.drop(updates)
        for update in updates:
            self._origins.take(update)

    def spends(self, updates: Iterable[Update]) -> bool:
        """Return whether to commit these updates now would spend the budget: then a policy that holds them should.

        By what the global model has taken in so far, and what was trained. A budget of simulated time ends by itself.
        """
        held = sum([update.steps for update in updates])
        return self.limits.spent(self.ledger.committed + held, self._trained())

    def scalar(self, compute: Callable[[], float]) -> float:
        """Compute a number out of parameters, to branch on: `sim.scalar(delta.norm)`. A resumed run gets the same."""
        number = self.params.layout.serials.number
        return compute() if number is None else number(compute)

    def evaluate(self, params: Params, of: str = GLOBAL) -> dict[str, float]:
        """Evaluate `params` on every evaluation set, recorded as the model `of`; takes no virtual time.

        Returns losses (for language models nats per token) by set; empty in timing mode. Raises Diverged if one is not
        finite.
        """
        return self.evaluations.evaluate(params, of)

    def offer(self, name: str, model: Callable[[], Optional[Params]]) -> None:
        """Have `model()` evaluated whenever the global model is, as `name`, unless `evaluate.of` leaves it out.

        To be called in the policy's `prepare`; `model` returns None as long as there is none. `workers` is a fine name
        for a policy that knows better where its workers are. Raises ValueError for `global`.
        """
        if name == GLOBAL:
            raise ValueError(f"{GLOBAL} is the name of the model that the policy commits")
        self.evaluations.offered[name] = model

    def _evaluate(self) -> bool:
        """Evaluate all models; return whether the global one has reached the target loss."""
        return self.limits.reached(self.evaluations.now() or {})

    def _between(self, between: Optional[Callable[[], None]]) -> None:
        """Before the next event, evaluate what is due until then; checkpoints come first, as they know of no end."""
        if between is not None:
            between()
        if self.evaluations.before(self.clock.next, self.limits.seconds, self.limits.reached):
            self._finish()

    def _warn_of_what_had_no_part(self) -> None:
        """An aggregator without collectives, faults of what workers send where it is never told who sends."""
        if not self._wire.aggregations and type(self._parts.aggregate) is not Mean:
            logger.warning("aggregate: nothing was aggregated in this run; its policy has no collectives")
        if not self._wire.asked and getattr(self._parts.faults, "sends", None) is not None:
            logger.warning("faults: nobody lied in this run; its policy does not say which worker sends what")

    def _trained(self) -> int:
        """The trained local steps that the budget counts: none while something of a round is outstanding."""
        ledger, rounds = self.ledger, self._rounds
        if rounds.opened and (not rounds.closed or self.jobs.running or ledger.in_flight > ledger.undelivered):
            return 0
        return ledger.trained

    def _forget(self, worker: int) -> None:
        """Forget a worker's inner state, if the executor can, and what its codec's error feedback has kept."""
        forget = getattr(self._parts.executor, "forget", None)
        if forget is not None:
            forget(worker)
        self._wire.forget(worker)

    def _finish(self) -> None:
        self.done = True
        self.clock.stop()
