"""What senders keep of what their codec has left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import pytest
import torch

from halos import Params
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
