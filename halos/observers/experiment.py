"""What a run is, for those who watch it: fixed from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from halos.world.cluster import Cluster
from halos.world.faults import FaultModel, NoFaults


@dataclass(frozen=True)
class Experiment:
    """One run's fixed facts. `config` is the resolved configuration, as `config.yaml` holds it."""

    name: str
    folder: Path
    config: dict[str, Any]
    policy: str  # its registered name
    seed: int
    cluster: Cluster
    local_steps: float  # of the budget, committed; infinite if they are not limited
    seconds: float  # of the budget, simulated; likewise
    tokens_per_step: int  # of one local step: samples · predicted tokens
    parameters: int  # in the model
    loss_average_steps: int
    real: bool  # whether training is real (losses are numbers)
    versions: dict[str, str]  # of halos, torch, Python and the plugins in use
    resumed_at: Optional[float] = None  # virtual seconds
    faults: FaultModel = field(default_factory=NoFaults)
