"""What rules share that look at everybody's payload: all of them are gathered, or everybody aggregates a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from halos import Cluster, ConfigError, Exchange, Layout, require

SCALAR = 4  # bytes


@dataclass(frozen=True)
class Gathering:
    """Every payload goes to everybody: AG(4P), which is M/2 times an all-reduce.

    `sharded`: everybody gets its 1/M of all payloads, aggregates that, and its result goes to all: the bytes of an
    all-reduce. Whoever has a part is believed about it.
    """

    # How payloads travel: `gather`, or `sharded`.
    exchange: str = "gather"
    weighs: ClassVar[bool] = False  # relative weights are no part of these rules
    ways: ClassVar[tuple[str, ...]] = ("gather", "sharded")

    def __post_init__(self) -> None:
        require(self.exchange in self.ways, "exchange", self.exchange, f"one of {', '.join(self.ways)}")

    @property
    def sharded(self) -> bool:
        return self.exchange == "sharded"

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        return [Exchange(nbytes, gathered=not self.sharded)]


def needs(cluster: Cluster, workers: int, key: str, value: int) -> None:
    """Raise ConfigError for `key` unless there are so many workers."""
    there = len(cluster.workers)
    if there < workers:
        raise ConfigError(key, f"{value} needs {workers} workers at least; there are {there}")
