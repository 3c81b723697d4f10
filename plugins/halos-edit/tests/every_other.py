"""An aggregator for the tests: the mean, but of every second collective nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from halos import Params, Payload, Register, hookimpl, mean


@dataclass
class EveryOther:
    def combine(self, payloads: Iterable[Payload], state: Optional[int]) -> tuple[Params, int]:
        several = mean([value for _, value, _ in payloads])
        index = 0 if state is None else state
        return several.zeros() if index % 2 else several, index + 1


@hookimpl
def register_aggregators(register: Register) -> None:
    register("every_other", EveryOther)
