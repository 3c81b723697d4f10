"""A cluster by the speeds of its workers."""

from __future__ import annotations

from typing import Any


def speeds(*regions: list[float]) -> dict[str, Any]:
    return {"regions": [{"workers": workers} for workers in regions], "step_time_ms": 1000}
