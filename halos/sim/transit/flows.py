"""Flows: bytes on links that are shared, at rates that change whenever some come or go. What they are others know."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Optional

from halos.sim.clock import Clock, Event
from halos.values.rounding import latest
from halos.world.fair import Link, Weights, fair_rates
from halos.world.phases import Capacity, Phase, state_of


class Flow:
    """Bytes under way, until `done` is called."""

    __slots__ = ("bits", "done", "ends_at", "phase", "way")

    def __init__(self, phase: Phase, way: Way, done: Callable[[], None]) -> None:
        self.phase = phase
        self.way = way
        self.bits = phase.size * 8.0  # over the busiest link
        self.ends_at = way.served + self.bits  # on its way's meter
        self.done: Optional[Callable[[], None]] = done  # None: it was given up


class Way:
    """All flows that use the same links with the same weights: they have the same rate, always.

    So one meter, `served`, counts the bits that each of them has moved since the first came; a flow is over when the
    meter has moved on by its own bits. However many there are, to change their rate is to change one number.
    """

    __slots__ = ("ends", "flows", "rate", "served", "since", "under_way", "weights")

    def __init__(self, weights: Weights, now: float) -> None:
        self.weights = weights
        self.flows: list[tuple[float, int, Flow]] = []  # a heap, by where the meter is when they are over
        self.under_way = 0
        self.served = 0.0  # bits, at `since`
        self.since = now
        self.rate = 0.0  # bits per second, of each flow
        self.ends = math.inf  # when the first of its flows is over at that rate

    def advance(self, now: float) -> None:
        """Move the meter on to `now`."""
        if now > self.since:
            self.served += self.rate * (now - self.since)
            self.since = now

    def expect(self) -> None:
        """Work out anew when the first of its flows is over; infinitely far if it has none, or they stand still."""
        while self.flows and self.flows[0][2].done is None:
            heappop(self.flows)
        self.ends = math.inf
        if self.flows and self.rate > 0.0:
            self.ends = self.since + max(0.0, self.flows[0][0] - self.served) / self.rate


class Flows:
    """The flows that are under way. What comes or goes at one moment changes rates once, when all of that has happened.

    Only ways that share a link with what changed, directly or through others, are looked at.
    """

    def __init__(self, clock: Clock, capacity: Capacity) -> None:
        self._clock = clock
        self._capacity = capacity
        self._ways: dict[tuple[tuple[Link, float], ...], Way] = {}  # by their weights
        self._users: dict[Link, dict[Way, None]] = {}  # the ways over each link in use
        self._until: dict[Link, float] = {}  # when the capacity of a link in use changes, if it does
        self._changed: dict[Link, None] = {}  # links whose ways need new rates
        self._settling: Optional[Event[None]] = None
        self._wake = math.inf  # the earliest moment that is on the clock for the next end or change
        self._order = count()
        self._carried: dict[Link, float] = {}  # bytes, of flows that are over

    def add(self, phase: Phase, done: Callable[[], None]) -> Optional[Flow]:
        """Put a phase's bytes on their links; `done` is called at the moment when the last have left.

        Returns None if nothing holds them back; that moment is then this one, but never before this returns.
        """
        weights = phase.weights()
        if not weights:
            self._clock.at(self._clock.now, done)
            return None
        key = tuple(weights.items())
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = Way(weights, self._clock.now)
            for link in weights:
                self._users.setdefault(link, {})[way] = None
        way.advance(self._clock.now)
        flow = Flow(phase, way, done)
        heappush(way.flows, (flow.ends_at, next(self._order), flow))
        way.under_way += 1
        self._change(weights)
        return flow

    def give_up(self, flow: Flow) -> None:
        """Take a flow that is under way off its links; its `done` is not called."""
        if flow.done is not None:
            flow.done = None
            flow.way.advance(self._clock.now)
            self._leave(flow, 1.0 - max(0.0, flow.ends_at - flow.way.served) / flow.bits)

    def carried(self) -> dict[Link, float]:
        """Return the bytes that each link has carried so far, by link, in the order of their first use."""
        now, total = self._clock.now, dict(self._carried)
        for way in self._ways.values():
            way.advance(now)
            for ends_at, _, flow in way.flows:
                if flow.done is not None:
                    _count(total, flow.phase, 1.0 - max(0.0, ends_at - way.served) / flow.bits)
        return total

    def standing(self) -> list[Link]:
        """Return the links that keep flows from ever being over: they have no capacity, and get none."""
        states = ((link, state_of(link, self._capacity, self._clock.now)) for link in self._users)
        return [link for link, (bits, until) in states if bits <= 0.0 and until == math.inf]

    def _leave(self, flow: Flow, share: float) -> None:
        """It is off its links, having moved a share of its bytes."""
        way = flow.way
        _count(self._carried, flow.phase, share)
        way.under_way -= 1
        self._change(way.weights)
        if not way.under_way:
            del self._ways[tuple(way.weights.items())]
            for link in way.weights:
                del self._users[link][way]
                if not self._users[link]:
                    del self._users[link]
                    self._until.pop(link, None)

    def _change(self, weights: Weights) -> None:
        self._changed.update(dict.fromkeys(weights))
        if self._settling is None:
            self._settling = self._clock.at(self._clock.now, self._settle)

    def _settle(self) -> None:
        """Give new rates to all whom a change concerns, and wait for what comes next."""
        self._settling = None
        now, ways = self._clock.now, self._concerned()
        capacity: dict[Link, float] = {}
        for way in ways:
            way.advance(now)
            for link in way.weights:
                if link not in capacity:
                    capacity[link], until = state_of(link, self._capacity, now)
                    if until < math.inf:
                        self._until[link] = until
                    else:
                        self._until.pop(link, None)
        for way, rate in zip(ways, fair_rates([(way.weights, way.under_way) for way in ways], capacity)):
            way.rate = rate
            way.expect()
        self._wait()

    def _concerned(self) -> list[Way]:
        """The ways over links that changed, and those that share any link with them, and so on."""
        links, found = self._changed, dict[Way, None]()
        self._changed = {}
        waiting = list(links)
        while waiting:
            for way in self._users.get(waiting.pop(), ()):
                if way not in found:
                    found[way] = None
                    new = [link for link in way.weights if link not in links]
                    links.update(dict.fromkeys(new))
                    waiting += new
        return list(found)

    def _wait(self) -> None:
        """Have the clock wake us for the next end or change; a later moment that is on it already is passed over."""
        ends = min([way.ends for way in self._ways.values()], default=math.inf)
        moment = min(ends, min(self._until.values(), default=math.inf))
        if moment < self._wake:
            self._wake = moment = max(moment, self._clock.now)
            self._clock.at(moment, lambda: self._woken(moment))

    def _woken(self, moment: float) -> None:
        if moment != self._wake:
            return  # something came before
        self._wake = math.inf
        now, end = self._clock.now, latest(self._clock.now)
        for way in [way for way in self._ways.values() if way.ends <= end]:
            way.advance(now)
            way.expect()  # some may have been given up at this very moment
            while way.ends <= end:
                _, _, flow = heappop(way.flows)
                way.expect()
                self._end(flow)
        self._changed.update(dict.fromkeys([link for link, until in self._until.items() if until <= end]))
        if not self._changed:
            self._wait()
        elif self._settling is None:
            self._settling = self._clock.at(now, self._settle)

    def _end(self, flow: Flow) -> None:
        done, flow.done = flow.done, None
        assert done is not None, "those given up have been taken off the heap"
        self._leave(flow, 1.0)
        done()


def _count(total: dict[Link, float], phase: Phase, share: float) -> None:
    for link, load in phase.loads.items():
        total[link] = total.get(link, 0.0) + share * load
