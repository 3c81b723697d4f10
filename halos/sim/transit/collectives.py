"""Collectives: payloads that become one, joined at once or one by one, serially in the order they were opened."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, starmap
from typing import Optional, Union

from halos.errors import Lost
from halos.rules.aggregate import Exchange, Payload
from halos.rules.codecs import Codec
from halos.sim.clock import Clock, Event
from halos.sim.course import Loss
from halos.sim.faults.hazards import Hazards
from halos.sim.listeners import Listeners
from halos.sim.transit.journeys import Journeys
from halos.sim.transit.wire import Reduction, Wire
from halos.values.params import Params
from halos.values.records import ALL_REDUCE, Contribution, Transfer, Update
from halos.world.cluster import Cluster, Worker
from halos.world.network import NetworkModel


class Collective:
    """One of them: starts when `members` workers have joined or left and the ones before it are over."""

    def __init__(self, queue: Collectives, members: int, codec: Codec, key: Hashable = None) -> None:
        self.key = key
        self.reduction: Optional[Reduction] = None  # known when all have joined; under faults, when it starts
        self.arrival: Event[Params] = Event(queue.clock)
        self.asked = 0  # of its messages, how many a policy has asked about
        self._queue = queue
        self._members = members
        self._codec = codec
        self._payloads: dict[int, Optional[Payload]] = {}  # by worker; None: it has none, or that is over
        self._since: dict[int, float] = {}  # by worker, when it joined
        # By worker, in order of joining: updates without their results, and what the last of them began from.
        self._brought: dict[int, tuple[list[Update], Params]] = {}

    @property
    def heard(self) -> tuple[int, ...]:
        """The ids of those whose payloads are in it, in order; nobody before it has started, or if it was lost."""
        return () if self.reduction is None else tuple(id for id in self.reduction.senders if isinstance(id, int))

    def join(
        self,
        worker: Worker,
        payload: Params,
        brings: Union[Update, Sequence[Update], None] = None,
        weight: float = 1.0,
    ) -> Event[Params]:
        """Contribute `payload`; the event happens with what `aggregate:` makes of all, their mean. Returns at once.

        Payloads are taken in order of worker, however they came; `weight` is relative to the others'. `brings` is the
        update that the payload holds, or several of one job after the other, for `contributions`. Who is down between
        joining and the start is left out, and what it brought dropped. Raises RuntimeError for a worker that joins
        twice, or a collective that is complete, ValueError for a weight that is none. The event raises Lost, when that
        is detected, if a message does not arrive, a link is down for ever, or there is nobody's payload.
        """
        self._turns(worker, "joins")
        self._payloads[worker.id] = Payload(worker.id, payload, _positive(weight))
        self._since[worker.id] = self._queue.clock.now
        if brings is not None:
            several = [brings] if isinstance(brings, Update) else list(brings)
            self._brought[worker.id] = [update.receipt() for update in several], several[-1].start
        self._complete()
        return self.arrival

    def leave(self, worker: Worker) -> None:
        """Go on without `worker`: there is a payload less to wait for. Raises RuntimeError as `join` does."""
        self._turns(worker, "leaves")
        self._payloads[worker.id] = None
        self._complete()

    def contributions(self, target: Params, from_version: Optional[int] = None) -> list[Contribution]:
        """Return what was brought, in order of joining, as contributions applied to `target`, for `sim.commit`.

        `from_version` is the version that the updates began from; as for Contribution.
        """
        return [Contribution(several, start, target, from_version) for several, start in self._brought.values()]

    @property
    def complete(self) -> bool:
        """Whether nobody is waited for any more."""
        return len(self._payloads) == self._members or self.reduction is not None

    def reduce(self) -> bool:
        """Make one of what has come, from those who have been up since; return whether there is anything."""
        if self.reduction is None:
            queue = self._queue
            gone = [id for id, time in self._since.items() if not queue.stays_up(id, time)]
            for id in gone:
                self._payloads[id] = None
                if id in self._brought:
                    queue.drop(self._brought.pop(id)[0])
            ordered = [joined for _, joined in sorted(self._payloads.items()) if joined is not None]
            if ordered:
                short = None if len(ordered) == self._members else self._factor([each.sender for each in ordered])
                self.reduction = queue.reduce(iter(ordered), self._codec)
                if short is not None:
                    self.reduction = replace(self.reduction, aggregate=self.reduction.aggregate / short)
            self._payloads = dict.fromkeys(self._payloads)  # the tensors are not needed any more
        return self.reduction is not None

    def _factor(self, senders: list[Hashable]) -> Optional[float]:
        """Return the mean factor of those who are there, where the mean of all, which is 1, is not theirs."""
        factors = [self._brought[id][0][-1].factor for id in senders if isinstance(id, int) and id in self._brought]
        mean = math.fsum(factors) / len(factors) if factors else 1.0
        return None if mean == 1.0 else mean

    def _turns(self, worker: Worker, does: str) -> None:
        """Raise RuntimeError if it is not `worker`'s turn; messages that were asked about just now are of this one."""
        if worker.id in self._payloads:
            raise RuntimeError(f"worker {worker.id} {does} the same collective twice")
        if self.complete:
            raise RuntimeError(f"worker {worker.id} {does} a collective of {self._members} that is complete")
        self.asked += self._queue.asked()

    def _complete(self) -> None:
        if self.complete:
            if not self._queue.unreliable:
                self.reduce()
            self._queue.advance()


class Collectives:
    """All of a run's collectives: first opened, first served, one at a time."""

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        network: NetworkModel,
        wire: Wire,
        tell: Listeners,
        hazards: Hazards,
        journeys: Optional[Journeys],
        drop: Callable[[Iterable[Update]], None],
    ) -> None:
        self.clock = clock
        self.drop = drop  # told of updates whose worker went down while their collective waited
        self.unreliable = hazards.unreliable
        self.asked = hazards.take_asked
        self.since: Optional[float] = None  # when the one under way began, if one is
        self.lost: Optional[str] = None  # why the last of those that were lost was
        self._workers = cluster.workers
        self._network = network
        self._wire = wire
        self._tell = tell
        self._hazards = hazards
        self._journeys = journeys  # None: the network knows how long everything takes
        self._waiting: deque[Collective] = deque()
        self._named: dict[Hashable, Optional[Collective]] = {}  # None: over
        self._running: Optional[Collective] = None

    def open(self, key: Hashable, members: Optional[int] = None, codec: Optional[Codec] = None) -> Collective:
        """Return the collective opened under `key`; if there is none, a new one, of all workers unless said otherwise.

        Raises RuntimeError if it is over, unless it was lost.
        """
        if key in self._named:
            collective = self._named[key]
            if collective is None:
                raise RuntimeError(f"collective {key!r} is over: all its members have joined")
            return collective
        collective = Collective(self, members or len(self._workers), codec or self._wire.codec, key)
        self._named[key] = collective
        self._waiting.append(collective)
        return collective

    def all_reduce(
        self,
        payloads: Iterable[Params],
        codec: Optional[Codec],
        senders: Optional[list[int]],
        weights: Optional[Iterable[float]] = None,
    ) -> Event[Params]:
        """Queue a collective that everybody has joined already; `senders` are the workers 0, 1, … unless given."""
        codec = codec or self._wire.codec
        collective = Collective(self, 0, codec)
        named = zip(count() if senders is None else senders, payloads)
        brought = starmap(Payload, named) if weights is None else _weighed(named, weights)
        collective.reduction = self.reduce(brought, codec)
        collective.asked = self.asked()
        self._waiting.append(collective)
        self.advance()
        return collective.arrival

    def reduce(self, payloads: Iterable[Payload], codec: Codec) -> Reduction:
        """Return the outcome of a collective of these payloads. Raises ValueError if there are none."""
        return self._wire.reduce(payloads, codec)

    def stays_up(self, worker: int, since: float) -> bool:
        """Whether this worker has been up since then."""
        return self._hazards.stays_up(self._workers[worker], since, self.clock.now)

    def advance(self) -> None:
        """Start the first that waits, if it is complete and nothing runs."""
        if self._running is None and self._waiting and self._waiting[0].complete:
            self._running = first = self._waiting.popleft()
            (self._start(first) if first.reduce() else self._fail()).when_done(self._finish)

    def whole_model_seconds(self) -> float:
        """Seconds that a collective of whole models' differences among all workers would take now."""
        members = len(self._workers)
        return self._seconds(self._wire.whole_model(members), members, self.clock.now)

    def _fail(self) -> Event[Params]:
        """Return an event for a collective of nobody's payload, which is lost at once."""

        def nobody() -> Params:
            raise Lost("a collective", self.clock.now, "nobody was there")

        return self.clock.at(self.clock.now, nobody)

    def _start(self, collective: Collective) -> Event[Params]:
        """Return an event for the end of a complete collective, or for the moment at which its loss is detected."""
        clock, hazards, start, reduction = self.clock, self._hazards, self.clock.now, collective.reduction
        assert reduction is not None, "there is something to send"
        self.since = start
        senders = [sender for sender in reduction.senders if isinstance(sender, int)]
        members = [self._workers[sender] for sender in senders if sender < len(self._workers)]
        several = reduction.members > 1
        loss = hazards.gather(members, reduction.members - collective.asked, start) if several else None

        def arrive() -> Params:
            self.since = None
            if loss is not None:
                raise Lost("a collective", loss.at, loss.why)
            self._tell.transfer(Transfer(start, clock.now, None, None, reduction.crossing, ALL_REDUCE))
            return reduction.aggregate

        def missed(found: Loss) -> None:
            nonlocal loss
            loss, self.lost = found, found.why
            clock.at(loss.at + hazards.detection, event.happen)

        if loss is None and self._journeys is not None:
            if len(members) < reduction.members:  # of payloads that are no worker's: as if they were
                members = [self._workers[index % len(self._workers)] for index in range(reduction.members)]
            event: Event[Params] = Event(clock, arrive)
            self._journeys.collective(reduction.exchanges, members, event.happen, missed)
            return event
        ends = start
        if loss is None:
            seconds = self._seconds(reduction.exchanges, reduction.members, start)
            ends = start + seconds
            if several:
                ends, loss = hazards.collective([member.region for member in members], start, seconds)
        if loss is not None:
            self.lost = loss.why
            ends = loss.at + hazards.detection
        return clock.at(ends, arrive)

    def _seconds(self, exchanges: Iterable[Exchange], members: int, start: float) -> float:
        """Seconds that exchanges among so many take, one after the other from `start` on."""
        seconds = 0.0
        for nbytes, gathered in exchanges:
            seconds += self._exchange(nbytes, members, gathered, start + seconds)
        return seconds

    def _exchange(self, nbytes: int, members: int, gathered: bool, start: float) -> float:
        network = self._network
        if not gathered:
            return network.all_reduce(nbytes, members, start)
        all_gather: Optional[Callable[[int, int, float], float]] = getattr(network, "all_gather", None)
        if all_gather is not None:
            return all_gather(nbytes, members, start)
        return network.all_reduce(-(-nbytes * members // 2), members, start)  # as many bytes cross each link

    def _finish(self, event: Event[Params]) -> None:
        assert self._running is not None, "one was under way"
        arrival = self._running.arrival
        if event.error is not None:
            self._running.reduction = None
        elif self._named.get(self._running.key) is self._running:
            self._named[self._running.key] = None  # keep the name, not the tensors
        self._running = None
        if event.error is not None:
            arrival.fail(event.error)
        else:
            arrival.succeed(event.value)
        self.advance()


def _weighed(named: Iterable[tuple[int, Params]], weights: Iterable[float]) -> Iterator[Payload]:
    """Yield payloads with their weights. Raises ValueError unless there is a positive one for each."""
    for (sender, value), weight in zip(named, weights, strict=True):
        yield Payload(sender, value, _positive(weight))


def _positive(weight: float) -> float:
    if not 0.0 < weight < math.inf:
        raise ValueError(f"a relative weight of {weight!r}; it must be positive and finite")
    return weight
