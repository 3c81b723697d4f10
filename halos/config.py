"""The configuration of a run: its sections, and loading them from a file with key=value on top."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from halos.budget import BudgetOptions
from halos.builder import Builder
from halos.checkpoint import CheckpointOptions
from halos.cluster import ClusterOptions
from halos.codecs import Codec
from halos.compute import ComputeModel
from halos.data import DataSource
from halos.errors import ConfigError, require, shown
from halos.evaluation import EvaluateOptions
from halos.executors import Executor
from halos.faults import FaultModel
from halos.inner import TrainOptions
from halos.layers import DEFAULTS, merge, overrides, read
from halos.loading import unique
from halos.models import Model
from halos.network import NetworkModel
from halos.observers import ObserverOptions
from halos.plugins import Plugins
from halos.references import interpolate
from halos.simulation import SyncPolicy
from halos.steps import StepAllocation
from halos.weights import ContributionWeights
from halos.yaml_text import Section


@dataclass
class Config:
    """A run, resolved: every named section is the component it names."""

    cluster: ClusterOptions
    model: Model
    policy: SyncPolicy
    budget: BudgetOptions
    network: NetworkModel
    compute: ComputeModel
    data: DataSource
    weights: ContributionWeights
    codec: Codec
    executor: Executor
    steps: StepAllocation
    faults: FaultModel
    name: str = "run"
    out: Optional[str] = None
    seed: int = 1234
    plugins: list[str] = field(default_factory=list)
    train: TrainOptions = field(default_factory=TrainOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    observers: ObserverOptions = field(default_factory=ObserverOptions)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "a number from 0 to 2^63 - 1")
        plain = self.name not in ("", ".", "..") and not any(each in self.name for each in "/\\\0")
        require(plain, "name", self.name, "the name of a folder (no slashes); `out` takes a path")
        if self.budget.target_loss is not None and self.evaluate.every_local_steps is None:
            raise ConfigError("evaluate.every_local_steps", "missing; budget.target_loss is only seen by evaluating")

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path("runs") / self.name if self.out is None else Path(self.out)


def load(
    path: Optional[str], changes: list[str] | tuple[str, ...] = (), plugins: Optional[list[str]] = None
) -> tuple[Config, Plugins]:
    """The configuration in file `path` with `key=value` changes on top, and the plugins it uses.

    `plugins` are loaded in addition to installed ones and those the file names, and become part of
    the configuration. UserError says what is wrong, with the full key.
    """
    layer: Section = {} if path is None else read(Path(path))
    merged = interpolate(merge(merge(DEFAULTS, layer), overrides(changes)))
    named = merged.get("plugins") or []
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise ConfigError("plugins", f"{shown(named)} is not a list of files or modules")
    merged["plugins"] = unique([*named, *(plugins or [])])
    found = Plugins(merged["plugins"])
    return resolve(merged, found), found


def resolve(section: Section, plugins: Plugins) -> Config:
    """The merged sections as a Config."""
    config = Builder(plugins).build(Config, section, "")
    assert isinstance(config, Config), "built from its own class"
    return config
