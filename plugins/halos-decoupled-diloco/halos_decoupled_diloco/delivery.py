"""Delivery: what is sent again whenever it is lost and the link is up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from halos import FP32, Lost, Params, Simulation


async def deliver(
    sim: Simulation,
    payload: Callable[[], Params],
    src: int,
    dst: int,
    wanted: Callable[[], bool] = lambda: True,
    model: bool = False,
) -> Optional[Params]:
    """What arrives, in the end, of the payload as it is at each sending; None as soon as it is unwanted."""
    while wanted():
        try:
            return await sim.send(payload(), src, dst, FP32 if model else None)
        except Lost:
            await sim.faults.reachable(src, dst)
    return None
