"""How much of its time a cluster computes when reductions of layers overlap with computing.

What layers, steps and reductions there are is said by whoever asks; nothing here is trained or sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Seconds: TypeAlias = "NDArray[np.float64]"  # one number per link speed; all of them are worked out together


@dataclass(frozen=True)
class Moment:
    """A moment of the cycle at which layer `layer` is queued for its reduction, or waits for it."""

    at: int  # thirds of a layer's part of a step, from the start of the cycle
    waits: bool
    layer: int


class Cycle:
    """`every` local steps in which each layer is reduced once, again and again.

    A step goes forward through all layers and back from the last to the first; a layer's forward pass, its
    gradients of activations and its gradients of parameters take a third of its share of the step each. Fragment
    p of P is sent in step (p + 1) · every / P of the cycle, rounded: each of its layers is queued as soon as its
    gradients of parameters are done. One link carries one layer's reduction after the other. The layer's forward
    pass in the step after the next `overlap` steps waits until its reduction has arrived.
    """

    def __init__(self, fragments: list[list[int]], every: int, overlap: int) -> None:
        assert 0 <= overlap <= every, "a layer's reduction arrives before its next has arrived"
        layers = sum(map(len, fragments))
        self.third_parts = 3 * layers * every  # of the cycle
        self.every = every
        self.events: list[Moment] = []
        self.crossing: dict[int, int] = {}  # reductions of a layer that are under way when a cycle begins: 0 or 1
        for p, fragment in enumerate(fragments):
            step = max(0, round((p + 1) * every / len(fragments)) - 1)
            for layer in fragment:
                # A cycle begins in the middle of a step, before its first gradients: where least is under way.
                queued = 3 * layers * step + 2 * (layers - layer)
                awaited = 3 * layers * (step + 1 + overlap) + layer - layers
                self.crossing[layer], at = divmod(awaited, self.third_parts)
                self.events += Moment(queued, False, layer), Moment(at, True, layer)
        self.events.sort(key=lambda each: (each.at, each.waits, each.layer))

    def utilization(self, step_seconds: float, reduction_seconds: Seconds) -> Seconds:
        """The share of time spent computing, cycle after cycle; `reduction_seconds` are those of one layer."""
        return self.every * step_seconds / self.seconds(step_seconds, reduction_seconds)

    def seconds(self, step_seconds: float, reduction_seconds: Seconds) -> Seconds:
        """How long a cycle takes in the long run, exactly.

        When a cycle begins and what is under way then arrives are n moments; each of them, a cycle later, is the
        latest of some of them, each some seconds later. By Karp's theorem (Discrete Mathematics 23, 1978) n cycles,
        from any moments x(0), tell the rate for ever: max over moments of min over k < n of (x(n) − x(k)) / (n − k).
        """
        third = step_seconds * self.every / self.third_parts
        zero = np.zeros_like(reduction_seconds)
        now, link_free = zero, zero
        under_way = {layer: deque([zero] * count) for layer, count in self.crossing.items()}
        n = 2 + sum(self.crossing.values())
        moments = []
        for _ in range(n + 1):
            moments.append(np.stack([now, link_free, *(each for several in under_way.values() for each in several)]))
            at = 0
            for event in self.events:
                if event.at > at:
                    now, at = now + (event.at - at) * third, event.at
                if event.waits:
                    now = np.maximum(now, under_way[event.layer].popleft())
                else:
                    link_free = np.maximum(link_free, now) + reduction_seconds
                    under_way[event.layer].append(link_free)
            now = now + (self.third_parts - at) * third
        rates = ((moments[n] - moments[k]) / (n - k) for k in range(n))
        seconds: Seconds = np.max(reduce(np.minimum, rates), axis=0)
        return seconds
