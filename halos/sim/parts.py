"""The parts of a run that a simulation is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import pluggy

from halos.data.order import DataOrder
from halos.rules.aggregate import Aggregator
from halos.rules.codecs import Codec
from halos.rules.steps import StepAllocation
from halos.rules.weights import ContributionWeights
from halos.sim.limits import BudgetOptions, EvaluateOptions
from halos.sim.origins import RecordOptions
from halos.training import Executor
from halos.world.cluster import Cluster
from halos.world.compute import ComputeModel
from halos.world.faults import FaultModel
from halos.world.network import NetworkModel


def unchanged(listener: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Observers are called as they are."""
    return listener


@dataclass(frozen=True)
class Parts:
    """The components and numbers that a simulation is made of, checked and connected by whoever assembles them."""

    cluster: Cluster
    network: NetworkModel
    compute: ComputeModel
    steps: StepAllocation
    weights: ContributionWeights
    aggregate: Aggregator
    codec: Codec
    executor: Executor
    order: DataOrder
    budget: BudgetOptions
    batch_size: int
    global_batch_size: int
    tokens_per_step: int
    seed: int  # of the run
    wire_bytes: Optional[int]  # of the whole model in fp32; None: four bytes per parameter
    evaluate: EvaluateOptions
    hook: pluggy.HookRelay
    faults: FaultModel
    record: RecordOptions
    rate: Callable[[int], float]  # the inner learning rate of a learning-rate step, of which the first is 1
    real: bool  # whether training is (also while a replay's parameters are hollow)
    aside: Callable[[Callable[[Any], Any]], Callable[[Any], Any]] = unchanged  # how observers are called
    components: tuple[Any, ...] = ()  # of the run, that hear what happens
