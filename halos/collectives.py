"""Collectives: all-reduces that workers join one by one, run serially in the order they were opened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Optional

from halos.clock import Clock, Event
from halos.cluster import Worker
from halos.codecs import Codec
from halos.params import Params

Start = Callable[[list[Params], Codec], Event[Params]]


class Collective:
    """One all-reduce: starts when `members` payloads have joined and the ones before it are over."""

    def __init__(self, queue: Collectives, members: int, codec: Codec) -> None:
        self._queue = queue
        self._members = members
        self._codec = codec
        self._payloads: dict[int, Params] = {}
        self._mean: Event[Params] = Event(queue.clock)

    @property
    def complete(self) -> bool:
        """Whether every member has joined."""
        return len(self._payloads) == self._members

    def join(self, worker: Worker, payload: Params) -> Event[Params]:
        """Contribute; the event happens with the mean of all payloads. Waits for nobody by itself."""
        return self.add(worker.id, payload)

    def add(self, member: int, payload: Params) -> Event[Params]:
        """`join` for a member that is no worker, by a number of its own."""
        if member in self._payloads:
            raise RuntimeError(f"worker {member} joins the same collective twice")
        self._payloads[member] = payload
        if self.complete:
            self._queue.advance()
        return self._mean

    def start(self, start: Start) -> None:
        """Under way; payloads are summed in order of worker, however they came."""
        ordered = [self._payloads[member] for member in sorted(self._payloads)]
        self._payloads = {member: payload.shell() for member, payload in self._payloads.items()}
        start(ordered, self._codec).when_done(self._finish)

    def _finish(self, event: Event[Params]) -> None:
        if event.error is not None:
            self._mean.fail(event.error)
        else:
            self._mean.succeed(event.value)
        self._queue.finished()


class Collectives:
    """All of a run's collectives: first opened, first served, one at a time."""

    def __init__(self, clock: Clock, start: Start) -> None:
        self.clock = clock
        self._start = start
        self._waiting: deque[Collective] = deque()
        self._named: dict[Hashable, Collective] = {}
        self._running: Optional[Collective] = None

    def open(self, members: int, codec: Codec, key: Optional[Hashable] = None) -> Collective:
        """A new collective of so many members, or the one already opened under `key`."""
        if key is not None and key in self._named:
            return self._named[key]
        collective = Collective(self, members, codec)
        self._waiting.append(collective)
        if key is not None:
            self._named[key] = collective
        return collective

    def advance(self) -> None:
        """Start the first that waits, if it is complete and nothing runs."""
        if self._running is None and self._waiting and self._waiting[0].complete:
            self._running = self._waiting.popleft()
            self._running.start(self._start)

    def finished(self) -> None:
        self._running = None
        self.advance()
