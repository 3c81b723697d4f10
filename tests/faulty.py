"""What tests of faults share: faults at known moments, and plugins that bring some; this file is one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halos import Params, Register, all_of, hookimpl
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.recording import Recording
from halos.world.cluster import Worker
from halos.world.faults import FaultOptions
from tests.small_runs import AVERAGE, ONE_WORKER

HERE = str(Path(__file__))


@dataclass
class Losing(FaultOptions):
    """Loses the messages of these numbers, and has worker 1 down from one time to another."""

    messages: list[int] = field(default_factory=list)
    down: tuple[float, float] = (math.inf, math.inf)

    def loses(self, message: int) -> bool:
        return message in self.messages

    def outage(self, worker: Worker, time: float) -> tuple[float, float]:
        return self.down if worker.id == 1 and time < self.down[1] else (math.inf, math.inf)


@dataclass
class Half:
    """Sends half of everything, and the rest with the next."""

    error_feedback: bool = True

    def roundtrip(self, payload: Params) -> Params:
        return 0.5 * payload

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


@dataclass
class Stubborn:
    """Does not know of faults; `beside`: its rounds are a process that nobody awaits."""

    beside: bool = False

    async def run(self, sim: Simulation) -> None:
        if self.beside:
            sim.spawn(self._work(sim))
            await sim.sleep(1e6)
        else:
            await self._work(sim)

    async def _work(self, sim: Simulation) -> None:
        for r in sim.rounds():
            updates = await all_of([sim.train(worker, sim.params, round=r) for worker in sim.workers])
            sim.commit(updates[0].params, updates)


@hookimpl
def register_fault_models(register: Register) -> None:
    register("losing", Losing)


@hookimpl
def register_codecs(register: Register) -> None:
    register("half", Half)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("stubborn", Stubborn)


def crash(worker: int, at: float, seconds: float = math.inf, **options: Any) -> dict[str, Any]:
    return {"name": "crashes", "at": [{"worker": worker, "at_seconds": at, "seconds": seconds}], **options}


def outage(region: int, at: float, seconds: float = math.inf, **options: Any) -> dict[str, Any]:
    return {"name": "outages", "at": [{"region": region, "at_seconds": at, "seconds": seconds}], **options}


def link(at: float, seconds: float, share: float, both_ways: bool = True) -> dict[str, Any]:
    fault = {"src": 0, "dst": 1, "at_seconds": at, "seconds": seconds, "share": share, "both_ways": both_ways}
    return {"name": "links", "at": [fault]}


def one_async_worker(faults: dict[str, Any], steps: int, **train: Any) -> Recording:
    """One worker, 2 steps of 1 s a job, that pulls and pushes in no time."""
    policy = {"name": "async_local_sgd", "outer": AVERAGE}
    model = {"dtype": "float64", "size": 1}
    sections = tiny(cluster=ONE_WORKER, policy=policy, model=model, faults=faults, budget={"local_steps": steps})
    return record(sections | {"train": sections["train"] | train})
