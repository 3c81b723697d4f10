"""Aggregators: how the payloads of a collective become one, and what has to travel for that."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from halos.hooks import Register, hookimpl
from halos.values.params import Params, mean


class Payload(NamedTuple):
    """What one member brings to a collective, as decoded by the others."""

    sender: Hashable  # a worker's id
    value: Params
    weight: float = 1.0  # relative to the others', positive


class Exchange(NamedTuple):
    """One exchange of `nbytes` per member: an all-reduce, or an all-gather, by which all get all (`gathered`)."""

    nbytes: int
    gathered: bool = False

    def crossing(self, members: int) -> int:
        """Bytes that the links of the members' ring carry in all."""
        return (members if self.gathered else 2) * (members - 1) * self.nbytes


class Aggregator(Protocol):
    """How a collective's payloads become one: a function of payloads and state, which modifies neither.

    What travels is an all-reduce, unless a method `exchanges(nbytes, layout, members)` says otherwise; it depends on
    sizes and never on values. An attribute `weighs = False` says that `weights:` have no part in it.
    """

    def combine(self, payloads: Iterable[Payload], state: Any) -> tuple[Params, Any]:
        """Return what `payloads` become together, in their layout, and the next state; `state` is None at first.

        They come once, in order of worker, at least one, and need not be held. There is a state for each layout, of
        whoever takes part. It is made of `Params` and plain values, so that resumed runs find it: a number out of
        tensors goes by `Params.norm`, `dot` or `distance`, or stays inside `Params.combine`. Hollow payloads become a
        hollow one. Raises ValueError for payloads of different sizes.
        """
        ...


@dataclass(frozen=True)
class Mean:
    """The mean, Σ w Δ / Σ w: relative weights w are all the same unless the policy says so."""

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        members, total = 0, 0.0

        def weighed() -> Iterator[Params]:
            nonlocal members, total
            for _, value, weight in payloads:
                members += 1
                total += weight
                yield value if weight == 1.0 else value * weight

        average = mean(weighed())
        return (average if total == members else average * (members / total)), None


MEAN = Mean()


@hookimpl
def register_aggregators(register: Register) -> None:
    register("mean", Mean)
