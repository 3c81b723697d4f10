"""Phases: what a transfer or a collective is to links that are shared, and how long it takes when it is alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from halos.values.rounding import latest
from halos.world.fair import Link

Capacity = Callable[[Link, float], tuple[float, float]]  # of a link at a time: bits per second, and until when


class Phase(NamedTuple):
    """Bytes that move at once, in proportion, and how long it takes until the last of them have arrived.

    The bytes are on their links from the beginning. The phase is over `latency` seconds after the last of them have
    left; the next one begins then.
    """

    loads: Mapping[Link, float]  # bytes, by the links that limit them
    latency: float = 0.0  # seconds

    @property
    def size(self) -> float:
        """Bytes over the busiest of its links: what its rate is a rate of."""
        return max(self.loads.values(), default=0.0)

    def weights(self) -> dict[Link, float]:
        """Return the capacity of each link that a unit of its rate takes."""
        size = self.size
        return {link: load / size for link, load in self.loads.items() if load > 0.0}


def lone_seconds(phases: Iterable[Phase], capacity: Capacity, time: float) -> float:
    """Return how long `phases` take, one after the other from `time` on, if nothing else is on their links.

    In seconds; infinite if a link never carries anything again.
    """
    now = time
    for phase in phases:
        now = _emptied(phase, capacity, now) + phase.latency
    return now - time


def state_of(link: Link, capacity: Capacity, time: float) -> tuple[float, float]:
    """Return a link's `capacity` at a time; what changes then but for a rounding error, has changed."""
    rate, until = capacity(link, time)
    while time < until <= latest(time):
        rate, until = capacity(link, until)
    return rate, until


def bits_until(link: Link, capacity: Capacity, end: float) -> float:
    """Return the bits that a link could have carried from 0 to `end` seconds."""
    now = bits = 0.0
    while now < end:
        rate, until = state_of(link, capacity, now)
        until = min(until, end)
        bits += rate * (until - now)
        now = until
    return bits


def _emptied(phase: Phase, capacity: Capacity, now: float) -> float:
    """When the last of a phase's bytes have left."""
    weights, left = phase.weights(), phase.size * 8.0
    while weights:
        states = [(state_of(link, capacity, now), weight) for link, weight in weights.items()]
        rate = min(each / weight for (each, _), weight in states)
        until = min(until for (_, until), _ in states)
        if rate > 0.0 and now + left / rate <= latest(until):
            return now + left / rate
        if until == math.inf:
            return math.inf
        left -= (until - now) * rate
        now = until
    return now
