"""Fair shares: the rates of flows that use links together, max–min fair."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from heapq import heapify, heappop, heappush

Link = Hashable
Weights = Mapping[Link, float]  # per link: how much of its capacity one unit of a flow's rate takes


def fair_rates(flows: Sequence[tuple[Weights, int]], capacity: Mapping[Link, float]) -> list[float]:
    """Return the rate of each of `flows`, which are the weights of a kind of flow and how many there are of it.

    Rates rise together from zero; when a link is full, all that use it keep what they have, and the others rise on
    ("progressive filling", Bertsekas and Gallager, Data Networks, 6.5.2). What comes of it is max–min fair: nobody can
    have more without somebody who has no more than that having less. Capacities and rates are in the same unit, bits
    per second say. A flow without links, or over infinite ones only, has an infinite rate; one with a full link of
    capacity zero has none.
    """
    rates = [math.inf] * len(flows)  # of those that rise
    users: dict[Link, dict[int, float]] = {}  # of each link that can be full: those that rise, and what they take
    for index, (weights, count) in enumerate(flows):
        for link, weight in weights.items():
            if capacity[link] < math.inf:
                users.setdefault(link, {})[index] = weight * count
    left = {link: capacity[link] for link in users}
    # A link is full when all have risen to `level`, which only gets higher as others stop: one that is out of date is
    # put back. Ties go by order, so that nothing depends on how links are called.
    full = [(left[link] / sum(rising.values()), number, link) for number, (link, rising) in enumerate(users.items())]
    heapify(full)
    while full:
        level, number, link = heappop(full)
        if not users[link]:
            continue
        now = max(0.0, left[link]) / sum(users[link].values())
        if now > level:
            heappush(full, (now, number, link))
            continue
        for index in list(users[link]):
            rates[index] = level
            for other in flows[index][0]:
                if other in users:
                    left[other] -= users[other].pop(index) * level
    return rates
