"""Collectives: all-reduces that workers join one by one, run serially in the order they were opened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Optional

from halos.rules.codecs import Codec
from halos.sim.clock import Clock, Event
from halos.sim.transit.wire import Reduction
from halos.values.params import Params
from halos.world.cluster import Worker

Reduce = Callable[[Iterable[tuple[int, Params]], Codec], Reduction]  # of payloads and whose they are
Start = Callable[[Reduction], Event[Params]]


class Collective:
    """One all-reduce: starts when `members` payloads have joined and the ones before it are over."""

    def __init__(self, queue: Collectives, members: int, codec: Codec, key: Hashable = None) -> None:
        self.key = key
        self.reduction: Optional[Reduction] = None  # known when all have joined
        self.arrival: Event[Params] = Event(queue.clock)
        self._queue = queue
        self._members = members
        self._codec = codec
        self._payloads: dict[int, Optional[Params]] = {}

    def join(self, worker: Worker, payload: Params) -> Event[Params]:
        """Contribute; the event happens with the mean of all payloads. Waits for nobody by itself.

        Payloads are summed in order of worker, however they came.
        """
        if worker.id in self._payloads:
            raise RuntimeError(f"worker {worker.id} joins the same collective twice")
        if len(self._payloads) == self._members:
            raise RuntimeError(f"worker {worker.id} joins a collective of {self._members} that is complete")
        self._payloads[worker.id] = payload
        if len(self._payloads) == self._members:
            ordered = ((id, each) for id, each in sorted(self._payloads.items()) if each is not None)
            self.reduction = self._queue.reduce(ordered, self._codec)
            self._payloads = dict.fromkeys(self._payloads)  # the tensors are not needed any more
            self._queue.advance()
        return self.arrival


class Collectives:
    """All of a run's collectives: first opened, first served, one at a time."""

    def __init__(self, clock: Clock, reduce: Reduce, start: Start) -> None:
        self.clock = clock
        self.reduce = reduce
        self._start = start
        self._waiting: deque[Collective] = deque()
        self._named: dict[Hashable, Optional[Collective]] = {}  # None: over
        self._running: Optional[Collective] = None

    def open(self, members: int, codec: Codec, key: Hashable) -> Collective:
        """The collective opened under `key`, a new one of so many members if there is none."""
        if key in self._named:
            collective = self._named[key]
            if collective is None:
                raise RuntimeError(f"collective {key!r} is over: all its members have joined")
            return collective
        collective = self._named[key] = Collective(self, members, codec, key)
        self._waiting.append(collective)
        return collective

    def all_at_once(self, payloads: Iterable[Params], codec: Codec, senders: Optional[list[int]]) -> Event[Params]:
        """One that everybody has joined already; `senders` are 0, 1, … unless given."""
        collective = Collective(self, 0, codec)
        collective.reduction = self.reduce(enumerate(payloads) if senders is None else zip(senders, payloads), codec)
        self._waiting.append(collective)
        self.advance()
        return collective.arrival

    def advance(self) -> None:
        """Start the first that waits, if it is complete and nothing runs."""
        if self._running is None and self._waiting and self._waiting[0].reduction is not None:
            self._running = self._waiting.popleft()
            assert self._running.reduction is not None, "just seen to be complete"
            self._start(self._running.reduction).when_done(self._finish)

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
