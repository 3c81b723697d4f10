"""Records made by hand, for tests of those who keep or show them."""

from __future__ import annotations

from typing import Any

import torch

from halos.values.params import Layout, Params
from halos.values.records import EndToEnd, Share, Update

LAYOUT = Layout({"theta": (2,)})


def params(first: float, second: float) -> Params:
    return Params(LAYOUT, torch.tensor([first, second]))


def update(id: int = 0, steps: int = 1, **changes: Any) -> Update:
    """Of worker 1 in region 0, from (1, 1) to (0.5, 2), under way from 0 to 2 s."""
    made = Update(
        id=id,
        worker=1,
        region=0,
        start=params(1.0, 1.0),
        params=params(0.5, 2.0),
        steps=steps,
        start_time=0.0,
        time=2.0,
        start_version=3,
        samples=(4, 4 + steps),
        lr_step=2,
        losses=(0.5, 0.25),
        chunks=(1, 1),
        compute=(0.0, 2.0),
    )
    return made._replace(**changes)


def share(*updates: Update, staleness: int = 0, drift: float = 0.0, ways: tuple[EndToEnd, ...] = ()) -> Share:
    """Of updates that were computed from version 0 at (1, 1)."""
    return Share(updates, 0, staleness, drift, params(1.0, 1.0), params(1.0, 1.0), ways)
