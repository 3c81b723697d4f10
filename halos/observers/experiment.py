"""The facts about a run that are fixed from its start to its end, for observers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from halos.world.cluster import Cluster
from halos.world.faults import FaultModel, NoFaults


@dataclass(frozen=True)
class Experiment:
    """One run's fixed facts. `config` is the resolved configuration, as `config.yaml` holds it."""

    name: str  # of the run
    folder: Path  # the run folder
    config: dict[str, Any]  # resolved, as in `config.yaml`
    policy: str  # its registered name
    seed: int  # of the run
    cluster: Cluster  # who there is
    local_steps: float  # of the budget, committed; infinite if they are not limited
    seconds: float  # of the budget, simulated; likewise
    tokens_per_step: int  # of one local step: samples · predicted tokens
    parameters: int  # in the model
    loss_average_steps: int  # over which an update averages its losses
    real: bool  # whether training is real (losses are numbers)
    versions: dict[str, str]  # of halos, torch, Python and the plugins in use
    resumed_at: Optional[float] = None  # the virtual time that a resumed run goes on from; None in others
    faults: FaultModel = field(default_factory=NoFaults)  # `outage(worker, time)` says when workers are down
    trained_steps: float = math.inf  # of the budget, trained; infinite if they are not limited

    def share(self, local_steps: int, trained_steps: int, seconds: float) -> float:
        """Return how much of the budget is spent, 0 to 1: of what is furthest along; 0 if nothing is limited.

        Given local steps committed to the global model, local steps trained, and simulated seconds.
        """
        committed, trained = local_steps / self.local_steps, trained_steps / self.trained_steps
        return min(1.0, max(committed, trained, seconds / self.seconds))
