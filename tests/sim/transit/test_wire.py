"""What senders keep of what their codec has left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import pytest
import torch

from halos import FaultOptions, Params, Register, hookimpl
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.small_runs import MB_PER_S, Policy


@dataclass(frozen=True)
class Whole:
    """Whole numbers only; 0.4 arrives as 0, and with what was left out as 1 the second time."""

    error_feedback: bool = True

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(torch.round)

    def wire_bytes(self, payload: Params) -> int:
        return payload.size


@dataclass
class Doubling(FaultOptions):
    """Worker 1 sends twice what it should, plus `more`; every question is kept."""

    more: float = 0.0
    asked: list[tuple[list[Hashable], int]] = field(default_factory=list)

    def sends(self, payloads: Sequence[tuple[Hashable, Params]], number: int) -> list[Params]:
        self.asked.append(([sender for sender, _ in payloads], number))
        doubled = [value.map(lambda flat: 2 * flat + self.more) for _, value in payloads]
        return [twice if sender == 1 else value for (sender, value), twice in zip(payloads, doubled)]


@hookimpl
def register_fault_models(register: Register) -> None:
    register("doubling", Doubling)


@dataclass
class Two:
    """Two senders of one region, one after the other, each sending 0.4 twice."""

    senders: tuple[Optional[str], Optional[str]]

    async def run(self, sim: Simulation) -> None:
        self.arrived: list[float] = []
        codec, payload = Whole(), sim.params.map(lambda flat: torch.full_like(flat, 0.4))
        for _ in range(2):
            for sender in self.senders:
                received = await sim.send(payload, 0, 0, codec=codec, sender=sender)
                assert received.flat is not None
                self.arrived.append(float(received.flat[0]))


@pytest.mark.parametrize(
    ("senders", "arrived"),
    [
        # One's own: 0.4 → 0, then 0.4 + 0.4 → 1; for each of the two.
        (("a", "b"), [0.0, 0.0, 1.0, 1.0]),
        # One and the same: 0.4 → 0, 0.8 → 1, 0.2 → 0, 0.6 → 1.
        ((None, None), [0.0, 1.0, 0.0, 1.0]),
    ],
)
def test_every_sender_has_its_own_residual(senders: tuple[Optional[str], Optional[str]], arrived: list[float]) -> None:
    policy = Two(senders)
    record(tiny(), policy=policy)
    assert policy.arrived == arrived


def test_wire_bytes_scale_every_payload_fragments_too() -> None:
    async def body(sim: Simulation) -> None:
        await sim.send(sim.params, 0, 0)
        await sim.send(sim.params[(slice(0, 250_000),)], 0, 0)

    run = record(
        tiny(
            executor={"name": "timing"},
            model={"name": "sized", "parameters": 1_000_000, "wire_bytes": 1000},
            network=MB_PER_S,
        ),
        policy=Policy(body),
    )
    assert [each.bytes for each in run.transfers] == [1000, 250]


def sent(faults: dict[str, Any]) -> tuple[list[float], Any]:
    """What arrives of ones in a collective, in another, and in two sends as worker 0's and 1's; and the fault model."""
    found: list[float] = []

    async def body(sim: Simulation) -> None:
        ones = sim.params.map(torch.ones_like)
        joined = [sim.collective(0).join(worker, ones) for worker in sim.workers]
        for event in (sim.all_reduce([ones, ones]), joined[0], *(sim.send(ones, 0, 0, sender=each) for each in (0, 1))):
            arrived = await event
            assert arrived.flat is not None
            found.append(float(arrived.flat[0]))

    run = record(tiny(faults=faults), plugins=[__file__], policy=Policy(body))
    return found, run.config.faults


def test_a_fault_model_says_what_is_sent_once_for_each_collective_and_send() -> None:
    found, faults = sent({"name": "doubling"})
    assert found == [1.5, 1.5, 1.0, 2.0]
    assert faults.asked == [([0, 1], 0), ([0, 1], 1), ([0], 2), ([1], 3)]


def test_several_say_so_one_after_the_other() -> None:
    of = [{"name": "doubling"}, {"name": "message_loss", "probability": 0.0}, {"name": "doubling", "more": 1.0}]
    found, faults = sent({"name": "several", "of": of})
    assert found == [3.0, 3.0, 1.0, 5.0]  # 2 · (2 · 1) + 1
    assert faults.of[0].asked == faults.of[2].asked
    assert sent({"name": "several", "of": of[1:2]})[1].sends is None
