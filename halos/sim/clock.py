"""Virtual time: events, the processes that wait for them, and the clock that brings both about.

No asyncio: a process is a coroutine that yields the event it waits for, and the clock resumes it
when that event has happened. Time is in seconds and moves only when nothing is left to do now;
ties happen in scheduling order. What the events mean is left to others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

from halos.errors import Lost
from halos.values.rounding import latest

T = TypeVar("T")


class Deadlock(Exception):
    """Nothing is left to happen while processes still wait; the message names them."""


class Event(Generic[T]):
    """Something that happens once, with a value or an error. Await it to get either."""

    __slots__ = ("clock", "done", "error", "produce", "value", "waiters")

    def __init__(self, clock: Clock, produce: Callable[[], T] | None = None) -> None:
        self.clock = clock
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.produce = produce  # called when a timed event happens; gives its value
        self.waiters: list[Callable[[Event[Any]], None]] = []

    def __await__(self) -> Generator[Event[T], None, T]:
        if not self.done:
            yield self
        if self.error is not None:
            raise self.error
        value: T = self.value
        return value

    def succeed(self, value: T | None = None) -> None:
        """Happen now, with `value`; whoever waits is resumed at this moment of virtual time. An event happens once."""
        assert not self.done, "an event happens once"
        self.done = True
        self.value = value
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Happen now, as an error raised in whoever awaits this; raised here if nobody does, unless it is Lost."""
        assert not self.done, "an event happens once"
        if not self.waiters and not isinstance(error, Lost):
            raise error
        self.done = True
        self.error = error
        self._wake()

    def happen(self) -> None:
        """Happen now, as a timed event does: with what `produce` returns, or the error that it raises."""
        assert self.produce is not None and not self.done, "an event happens once"
        produce, self.produce = self.produce, None
        try:
            value = produce()
        except Exception as error:
            self.fail(error)
        else:
            self.succeed(value)

    def when_done(self, callback: Callable[[Event[Any]], None]) -> None:
        """Call back (through the ready queue) once this has happened."""
        if self.done:
            self.clock.ready.append((callback, self))
        else:
            self.waiters.append(callback)

    def _wake(self) -> None:
        if self.waiters:
            ready = self.clock.ready
            for waiter in self.waiters:
                ready.append((waiter, self))
            self.waiters = []


class Process(Event[T]):
    """A running coroutine; as an event, it happens when the coroutine returns or raises."""

    __slots__ = ("_send", "coroutine")

    def __init__(self, clock: Clock, coroutine: Coroutine[Event[Any], None, T]) -> None:
        super().__init__(clock)
        self.coroutine = coroutine
        self._send = coroutine.send

    def _resume(self, _: Event[Any] | None = None) -> None:
        try:
            target = self._send(None)
        except StopIteration as stop:
            del self.clock.processes[self]
            self.succeed(stop.value)
        except Exception as error:
            del self.clock.processes[self]
            if not self.waiters:  # nobody would ever see it
                raise
            self.fail(error)
        else:
            if not isinstance(target, Event):
                raise TypeError(
                    f"{self.coroutine.__qualname__} awaits something that yields {target!r}; a process awaits only"
                    " events of its clock (train, send, sleep, …)"
                )
            target.when_done(self._resume)


class Clock:
    """The queue of what will happen, and the virtual time `now` in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped = False
        self.ending = False
        self.happened = 0  # timed events so far
        self.ready: deque[tuple[Callable[[Event[Any]], None], Event[Any]]] = deque()
        self.processes: dict[Process[Any], None] = {}
        self._heap: list[tuple[float, int, Event[Any], float]] = []  # whose turn it is when, and when that is then
        self._order = count()

    def timeout(self, seconds: float, produce: Callable[[], T] | None = None) -> Event[T]:
        """Return an event `seconds` of virtual time from now, with the value that `produce` returns then.

        What `produce` raises is the event's error. Infinitely far: it never happens. Raises ValueError for a
        negative time.
        """
        if not seconds >= 0.0:
            raise ValueError(f"an event cannot be {seconds} s from now")
        return self.at(self.now + seconds, produce)

    def at(self, moment: float, produce: Callable[[], T] | None = None, last: bool = False) -> Event[T]:
        """Return an event at that very `moment` (virtual seconds), else as `timeout`.

        To wait for `moment - now` may end before it, by a rounding error. With `last` it happens after all that is
        due at the moment, also a rounding error later: the end of a period in which that still counts. Raises
        ValueError for a moment that is over.
        """
        if not moment >= self.now:
            raise ValueError(f"an event cannot be at {moment} s, which is over at {self.now} s")
        event: Event[T] = Event(self, produce)
        heappush(self._heap, (latest(moment) if last else moment, next(self._order), event, moment))
        return event

    def spawn(self, coroutine: Coroutine[Event[Any], None, T]) -> Process[T]:
        """Start a process; it first runs when whoever spawned it waits for something.

        As an event, it has the value that the coroutine returns, or the error that it raises.
        """
        process: Process[T] = Process(self, coroutine)
        self.processes[process] = None
        self.ready.append((process._resume, process))
        return process

    @property
    def next(self) -> float:
        """When the next timed event is due; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def stop(self) -> None:
        """End `run` as soon as the running process waits for something."""
        self.stopped = True

    def end(self) -> None:
        """End `run` when nothing is left to do at this moment: no further timed event happens."""
        self.ending = True

    def run(self, until: float = math.inf, between: Callable[[], None] | None = None) -> None:
        """Let everything happen, in order, until stopped or ended, no process is left, or the time is `until`.

        What is due at `until` itself still happens, also if it is a rounding error late. `between` is called before
        every timed event (and the first that comes too late), when nothing is left to do at the moment. Raises Deadlock
        if processes wait for nothing.
        """
        ready, heap, processes, end, never = self.ready, self._heap, self.processes, latest(until), math.inf
        while not self.stopped:
            if ready:
                callback, event = ready.popleft()
                callback(event)
            elif self.ending or not processes:
                return
            elif heap and (heap[0][0] < never or until < never):
                if between is not None:
                    between()
                    if self.stopped:
                        return
                if heap[0][0] > end:
                    self.now = until
                    return
                _, _, event, moment = heappop(heap)
                if moment > self.now:
                    self.now = moment if moment < until else until
                self.happened += 1
                # As `succeed` and `fail` do, but without their calls: this is done for every event of a run.
                if event.produce is not None:
                    try:
                        event.value = event.produce()
                    except Exception as error:
                        if not event.waiters and not isinstance(error, Lost):
                            raise
                        event.error = error
                    event.produce = None
                event.done = True
                waiters, event.waiters = event.waiters, []
                for waiter in waiters:
                    ready.append((waiter, event))
            else:
                raise Deadlock(self._waiting())

    def close(self) -> None:
        """Close every process that still waits (its `finally` blocks run)."""
        for process in list(self.processes):
            process.coroutine.close()
        self.processes.clear()

    def _waiting(self) -> str:
        waiting = [where(process.coroutine) for process in self.processes]
        shown = "; ".join(waiting[:5]) + ("; …" if len(waiting) > 5 else "")
        return f"nothing is left to happen at {self.now:.6g} s, but {len(waiting)} process(es) still wait: {shown}"


def where(coroutine: Any) -> str:
    """`name (file:line)` of the innermost coroutine that `coroutine` is waiting in."""
    inner = coroutine
    while getattr(getattr(inner, "cr_await", None), "cr_frame", None) is not None:
        inner = inner.cr_await
    frame = inner.cr_frame
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "finished"
    return f"{inner.__qualname__} ({line})"


def _not_swallowed(event: Event[Any]) -> None:
    """Raise the error of an event whose value nobody will look at any more."""
    if event.error is not None and not isinstance(event.error, Lost):
        raise event.error


def all_of(events: Iterable[Event[T]]) -> Event[list[T]]:
    """Return an event that happens with the list of all values when the last has happened, or with the first error.

    Values are in the order given. Raises ValueError if there are no events.
    """
    return _gathered(events, but_lost=False)


def arrived(events: Iterable[Event[T]]) -> Event[list[T]]:
    """Return an event that happens when all have, with the values of those that did not raise Lost.

    Values are in the order given; any other error is the event's own, as soon as it happens. Raises ValueError if
    there are no events.
    """
    return _gathered(events, but_lost=True)


def _gathered(events: Iterable[Event[T]], but_lost: bool) -> Event[list[T]]:
    pending = list(events)
    if not pending:
        raise ValueError("there must be at least one event to wait for")
    result: Event[list[T]] = Event(pending[0].clock)
    missing = len(pending)

    def one_done(event: Event[Any]) -> None:
        nonlocal missing
        missing -= 1
        if result.done:
            _not_swallowed(event)
        elif event.error is not None and not (but_lost and isinstance(event.error, Lost)):
            result.fail(event.error)
        elif missing == 0:
            result.succeed([done.value for done in pending if done.error is None])

    for event in pending:
        event.when_done(one_done)
    return result


def first_of(events: Iterable[Event[T]]) -> Event[Event[T]]:
    """Return an event whose value is the first of `events` to have happened: await that for its value, or its error.

    Raises ValueError if there are no events.
    """
    pending = list(events)
    if not pending:
        raise ValueError("first_of needs at least one event")
    result: Event[Event[T]] = Event(pending[0].clock)

    def one_done(event: Event[Any]) -> None:
        if result.done:
            _not_swallowed(event)
        else:
            result.succeed(event)

    for event in pending:
        event.when_done(one_done)
    return result
