"""Runs of a policy that is a single function, small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.recording import Recording

Body = Callable[[Simulation], Coroutine[Any, None, None]]

AVERAGE = {"name": "sgd", "lr": 1.0}
MB_PER_S = {"bandwidth_gbps": 0.008}
FOUR_MB = {"name": "sized", "parameters": 1_000_000}
TWO_REGIONS = {"regions": [{"workers": [1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0}
ONE_WORKER = {"regions": [{"workers": [1.0]}], "step_time_ms": 1000.0}


@dataclass
class Policy:
    """A policy from a coroutine function."""

    body: Body

    async def run(self, sim: Simulation) -> None:
        await self.body(sim)


def timing(body: Body, **changes: Any) -> Recording:
    """A run of `body` that trains nothing, with a model of four megabytes."""
    return record(tiny(executor={"name": "timing"}, model=FOUR_MB, **changes), policy=Policy(body))
