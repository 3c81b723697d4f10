"""The Pareto front: who is at least as good in everything, and better in something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def dominators(costs: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """By name, who dominates it: has no higher cost of any kind and a lower one of some. Nobody: it is on the front."""
    return {
        name: [
            other
            for other, theirs in costs.items()
            if all(their <= our for their, our in zip(theirs, ours))
            and any(their < our for their, our in zip(theirs, ours))
        ]
        for name, ours in costs.items()
    }
