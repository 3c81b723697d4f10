"""A simulator for low-communication training: real local SGD under a virtual clock.

All that a plugin needs is imported from here (and, for its tests, from `halos.testing`); docs/plugins.md has the rest.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:  # python -m halos.run: Python looks in the working directory
    sys.path.append(sys.path.pop(0))  # first, where a plugin's file may be called random.py; from here on, last

import halos.lazy  # noqa: F401 - before all others
from halos.data import ArrayCorpus, Corpus, DataOptions, DataSource
from halos.data.batch import Batch
from halos.data.dataset import DatasetCorpus
from halos.errors import (
    ConfigError,
    Died,
    Diverged,
    Lost,
    UserError,
    did_you_mean,
    positive,
    require,
    shown,
    under,
)
from halos.hooks import Register, hookimpl
from halos.models import Model
from halos.observers.experiment import Experiment
from halos.observers.lines import Lines
from halos.observers.observer import Observer
from halos.reading.columns import Columns
from halos.reading.run import RunRecords, read
from halos.rules.aggregate import Aggregator, Exchange, Mean, Payload
from halos.rules.codecs import FP32, Bf16, Codec, Fp16, Fp32
from halos.rules.merge import (
    SGD,
    Adam,
    AdamState,
    DelayedNesterov,
    DelayedState,
    MergeRule,
    Nesterov,
    refused_by,
    start_of,
)
from halos.rules.steps import BySpeed, Fixed, RunSoFar, StepAllocation
from halos.rules.weights import ContributionWeights, Uniform
from halos.seeds import generator, own_seed, seed_for
from halos.sim.backlog import Backlog
from halos.sim.clock import Deadlock, Event, all_of, arrived, first_of
from halos.sim.outbox import Outbox
from halos.sim.probes import Probes
from halos.sim.rounds import Round, same_steps
from halos.sim.simulation import Simulation, SyncPolicy
from halos.sim.transit.collectives import Collective
from halos.training import Executor, Job, Outcome, Prediction, Task
from halos.training.agenda import Agenda
from halos.training.cores import cores
from halos.training.elsewhere import Elsewhere, in_hand, portable
from halos.training.inline import Inline
from halos.training.optimizers import AdamW, InnerOptimizer, Moments, decaying
from halos.training.options import TrainOptions
from halos.values.fragments import PATTERNS, assign, cut, layer_of
from halos.values.params import Fragment, Layout, Params, mean
from halos.values.records import (
    GLOBAL,
    Commit,
    Contribution,
    EndToEnd,
    Evaluation,
    LostJob,
    Merge,
    Share,
    Summary,
    Transfer,
    Update,
)
from halos.values.rounding import rounded, rounded_down, rounded_up
from halos.world.cluster import LONGEST_MS, SLOWEST, Cluster, Region, Worker
from halos.world.compute import ComputeModel, Constant
from halos.world.fair import fair_rates
from halos.world.faults import NEVER, FaultModel, FaultOptions, NoFaults, Outage, first_after, share_at
from halos.world.network import Matrix, NetworkModel, square
from halos.world.phases import Phase, lone_seconds

__all__ = [
    "FP32",
    "GLOBAL",
    "LONGEST_MS",
    "NEVER",
    "PATTERNS",
    "SGD",
    "SLOWEST",
    "Adam",
    "AdamState",
    "AdamW",
    "Agenda",
    "Aggregator",
    "ArrayCorpus",
    "Backlog",
    "Batch",
    "Bf16",
    "BySpeed",
    "Cluster",
    "Codec",
    "Collective",
    "Columns",
    "Commit",
    "ComputeModel",
    "ConfigError",
    "Constant",
    "Contribution",
    "ContributionWeights",
    "Corpus",
    "DataOptions",
    "DataSource",
    "DatasetCorpus",
    "Deadlock",
    "DelayedNesterov",
    "DelayedState",
    "Died",
    "Diverged",
    "Elsewhere",
    "EndToEnd",
    "Evaluation",
    "Event",
    "Exchange",
    "Executor",
    "Experiment",
    "FaultModel",
    "FaultOptions",
    "Fixed",
    "Fp16",
    "Fp32",
    "Fragment",
    "Inline",
    "InnerOptimizer",
    "Job",
    "Layout",
    "Lines",
    "Lost",
    "LostJob",
    "Matrix",
    "Mean",
    "Merge",
    "MergeRule",
    "Model",
    "Moments",
    "Nesterov",
    "NetworkModel",
    "NoFaults",
    "Observer",
    "Outage",
    "Outbox",
    "Outcome",
    "Params",
    "Payload",
    "Phase",
    "Prediction",
    "Probes",
    "Region",
    "Register",
    "Round",
    "RunRecords",
    "RunSoFar",
    "Share",
    "Simulation",
    "StepAllocation",
    "Summary",
    "SyncPolicy",
    "Task",
    "TrainOptions",
    "Transfer",
    "Uniform",
    "Update",
    "UserError",
    "Worker",
    "all_of",
    "arrived",
    "assign",
    "cores",
    "cut",
    "decaying",
    "did_you_mean",
    "fair_rates",
    "first_after",
    "first_of",
    "generator",
    "hookimpl",
    "in_hand",
    "layer_of",
    "lone_seconds",
    "mean",
    "own_seed",
    "portable",
    "positive",
    "read",
    "refused_by",
    "require",
    "rounded",
    "rounded_down",
    "rounded_up",
    "same_steps",
    "seed_for",
    "share_at",
    "shown",
    "square",
    "start_of",
    "under",
]


def __getattr__(name: str) -> str:
    """`halos.__version__`, as installed, looked up when somebody asks."""
    if name != "__version__":
        raise AttributeError(f"module 'halos' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("halos-simulator")
    except PackageNotFoundError:  # a checkout nobody installed
        return "unknown"
