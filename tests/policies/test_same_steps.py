"""Policies whose workers must all take as many steps, with an allocation that goes by what these have shown."""

from __future__ import annotations

from typing import Any

import pytest

from halos import UserError
from halos.testing import record, tiny

PACKAGES = ["halos_palsgd", "halos_sparta", "halos_streaming_diloco", "halos_heterogeneous_steps"]


@pytest.mark.parametrize(
    "policy", ["palsgd", "sparta", {"name": "streaming_diloco", "fragments": 1, "pattern": "balanced"}], ids=str
)
def test_a_round_with_unequal_steps_is_refused_when_it_is_opened(policy: Any) -> None:
    """After 1.5 s the second worker takes four times as long; so far a round was 2 steps of 1 s for both."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
        compute={"name": "schedule", "changes": [{"at_seconds": 1.5, "worker": 1, "speed": 0.25}]},
        steps={"name": "measured", "base": 2},
        policy=policy,
        budget={"local_steps": 40},
    )
    with pytest.raises(UserError, match=r"1 to 2 local steps.*needs the same for all: steps: \{name: fixed"):
        record(sections, PACKAGES)
