"""Collectives: payloads that become one, joined at once or one by one, serially in the order they were opened."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import count, starmap
from typing import Optional

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
    """One of them: starts when `members` payloads have joined and the ones before it are over."""

    def __init__(self, queue: Collectives, members: int, codec: Codec, key: Hashable = None) -> None:
        self.key = key
        self.reduction: Optional[Reduction] = None  # known when all have joined
        self.arrival: Event[Params] = Event(queue.clock)
        self._queue = queue
        self._members = members
        self._codec = codec
        self._payloads: dict[int, Optional[Payload]] = {}
        self._brought: list[tuple[Update, Params]] = []  # updates without their results, and what they began from

    def join(
        self, worker: Worker, payload: Params, brings: Optional[Update] = None, weight: float = 1.0
    ) -> Event[Params]:
        """Contribute `payload`; the event happens with what `aggregate:` makes of all, their mean. Returns at once.

        Payloads are taken in order of worker, however they came; `weight` is relative to the others'. `brings` is the
        update that the payload holds, for `contributions`. Raises RuntimeError for a worker that joins twice, or a
        collective that is complete, ValueError for a weight that is none. The event raises Lost, when that is detected,
        if a member is down or a message to it does not arrive.
        """
        if worker.id in self._payloads:
            raise RuntimeError(f"worker {worker.id} joins the same collective twice")
        if len(self._payloads) == self._members:
            raise RuntimeError(f"worker {worker.id} joins a collective of {self._members} that is complete")
        self._payloads[worker.id] = Payload(worker.id, payload, _positive(weight))
        if brings is not None:
            self._brought.append((brings.receipt(), brings.start))
        if len(self._payloads) == self._members:
            ordered = (joined for _, joined in sorted(self._payloads.items()) if joined is not None)
            self.reduction = self._queue.reduce(ordered, self._codec)
            self._payloads = dict.fromkeys(self._payloads)  # the tensors are not needed any more
            self._queue.advance()
        return self.arrival

    def contributions(self, target: Params, from_version: Optional[int] = None) -> list[Contribution]:
        """Return what was brought, in order of joining, as contributions applied to `target`, for `sim.commit`.

        `from_version` is the version that the updates began from; as for Contribution.
        """
        return [Contribution([update], start, target, from_version) for update, start in self._brought]


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
    ) -> None:
        self.clock = clock
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

        Raises RuntimeError if it is over.
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
        self._waiting.append(collective)
        self.advance()
        return collective.arrival

    def reduce(self, payloads: Iterable[Payload], codec: Codec) -> Reduction:
        """Return the outcome of a collective of these payloads. Raises ValueError if there are none."""
        return self._wire.reduce(payloads, codec)

    def advance(self) -> None:
        """Start the first that waits, if it is complete and nothing runs."""
        if self._running is None and self._waiting and self._waiting[0].reduction is not None:
            self._running = self._waiting.popleft()
            assert self._running.reduction is not None, "just seen to be complete"
            self._start(self._running.reduction).when_done(self._finish)

    def whole_model_seconds(self) -> float:
        """Seconds that a collective of whole models' differences among all workers would take now."""
        members = len(self._workers)
        return self._seconds(self._wire.whole_model(members), members, self.clock.now)

    def _start(self, reduction: Reduction) -> Event[Params]:
        """Return an event for the end of a complete collective, or for the moment at which its loss is detected."""
        clock, hazards, start = self.clock, self._hazards, self.clock.now
        self.since = start
        senders = [sender for sender in reduction.senders if isinstance(sender, int)]
        members = [self._workers[sender] for sender in senders if sender < len(self._workers)]
        several = reduction.members > 1
        loss = hazards.gather(members, reduction.members, start) if several else None

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
        if self._named.get(self._running.key) is self._running:
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
