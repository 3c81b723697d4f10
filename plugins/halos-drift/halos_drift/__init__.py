"""Drift: how far models move between where a pseudo-gradient was computed and where it is merged, and what that costs.

`observers.extra.drift` turns it on; README.md beside this has every number.
"""

from __future__ import annotations

from halos import Register, hookimpl

from .observer import Drift


@hookimpl
def register_observers(register: Register) -> None:
    register("drift", Drift)
