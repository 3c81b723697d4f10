"""The parts of a run that a simulation is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import pluggy

from halos.budget import BudgetOptions
from halos.cluster import Cluster
from halos.codecs import Codec
from halos.compute import ComputeModel
from halos.data.order import DataOrder
from halos.executors import Executor
from halos.faults import FaultModel
from halos.network import NetworkModel
from halos.steps import StepAllocation
from halos.tape import Tape
from halos.weights import ContributionWeights


@dataclass(frozen=True)
class Parts:
    """What a simulation is made of."""

    cluster: Cluster
    network: NetworkModel
    compute: ComputeModel
    steps: StepAllocation
    weights: ContributionWeights
    codec: Codec
    executor: Executor
    order: DataOrder
    budget: BudgetOptions
    batch_size: int
    global_batch_size: int
    tokens_per_step: int
    wire_bytes: Optional[int]  # of the whole model in fp32; None: four bytes per parameter
    evaluate_every: Optional[int]
    evaluation_sets: tuple[str, ...]
    hook: pluggy.HookRelay
    tape: Tape
    faults: Optional[FaultModel] = None
    components: tuple[Any, ...] = ()  # of the run, that hear what happens
