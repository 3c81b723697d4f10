"""The configuration of a run: its sections, and loading them from a file with key=value on top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from halos.config.builder import Builder
from halos.config.defaults import Defaults
from halos.config.env import with_env
from halos.config.evaluation_sets import inheriting
from halos.config.layers import DEFAULTS, merge, overrides, read
from halos.config.named import naming
from halos.config.paths import absolute, expanded
from halos.config.references import interpolate, refers
from halos.config.written import as_text, inside
from halos.config.yaml_text import Section
from halos.data import DataSource
from halos.errors import ConfigError, UserError, positive, require, shown, under
from halos.models import Model
from halos.observers.builtin import ObserverOptions
from halos.plugins.loading import unique
from halos.plugins.registry import Plugins
from halos.rules.aggregate import Aggregator
from halos.rules.codecs import Codec
from halos.rules.steps import StepAllocation
from halos.rules.weights import ContributionWeights
from halos.sim.limits import BudgetOptions, EvaluateOptions
from halos.sim.origins import RecordOptions
from halos.sim.simulation import SyncPolicy
from halos.training import Executor
from halos.training.options import TrainOptions
from halos.values.records import GLOBAL
from halos.world.cluster import ClusterOptions
from halos.world.compute import ComputeModel
from halos.world.faults import FaultModel
from halos.world.network import NetworkModel

SEEDS = ("seed", "split_seed")  # fields of components
LONGEST_LABEL = 100  # characters of a label's name, and of its value


@dataclass
class CheckpointOptions:
    """When a run writes what `--resume` goes on from: whenever an interval is over, and when it ends.

    Where the executor cannot save its state, there are none unless something is set here.
    """

    every_minutes: Optional[float] = 10.0  # of wall time; null: none
    every_local_steps: Optional[int] = None  # trained since the last one; null: none
    # Of the last moment that is the same with a larger budget: the run can be extended. False: not at the end.
    at_end: bool = True
    keep: int = 1  # how many of them: the newest

    def __post_init__(self) -> None:
        for key in ("every_minutes", "every_local_steps"):
            value = getattr(self, key)
            require(value is None or positive(value), key, value, "a positive number, or null")
        require(self.keep >= 1, "keep", self.keep, "a positive number of checkpoints")

    @property
    def wanted(self) -> bool:
        return self.at_end or self.every_minutes is not None or self.every_local_steps is not None

    @property
    def by_default(self) -> bool:
        """Whether nothing was asked for: a run that cannot be checkpointed goes without."""
        return self == CheckpointOptions()


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
    aggregate: Aggregator
    codec: Codec
    executor: Executor
    steps: StepAllocation
    faults: FaultModel
    name: str = "run"  # of the run; its folder is `runs/NAME` in the working directory
    out: Optional[str] = None  # the run folder, if it is to be another; one that has files in it is refused
    # Of every draw, 0 to 2^63 − 1; `data.seed` (order), `data.split_seed` (what is held out), `model.seed`,
    # `compute.seed` and `faults.seed` each take its place for what they are of.
    seed: int = 1234
    # What the run is called where runs are compared: names and short values, of any kind. Nothing that is simulated
    # looks at them.
    labels: dict[str, Union[int, float, str]] = field(default_factory=dict)
    # Files (`my_idea.py`, or the `__init__.py` of a package) or modules to load beside installed packages; `--plugin`
    # adds to them.
    plugins: list[str] = field(default_factory=list)
    train: TrainOptions = field(default_factory=TrainOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    record: RecordOptions = field(default_factory=RecordOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    observers: ObserverOptions = field(default_factory=ObserverOptions)
    # What was written of a component that another took the place of, and does not fit that: to be told, once it runs.
    dropped: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_seeds()
        self._check_labels()
        for set_name, source in self.evaluate.sets.items():
            key = f"evaluate.sets.{set_name}.validation_samples"
            require(source.validation_samples > 0, key, source.validation_samples, "a positive number of samples")
        self.out = None if self.out is None else expanded(self.out)
        plain = self.name not in ("", ".", "..") and not any(character in self.name for character in "/\\\0")
        require(plain, "name", self.name, "the name of a folder (no slashes); `out` takes a path")
        if self.budget.target_loss is not None:
            if self.evaluate.every_local_steps is None and self.evaluate.every_seconds is None:
                raise ConfigError(
                    "evaluate.every_local_steps",
                    "missing, as is every_seconds; budget.target_loss is only seen by evaluating",
                )
            if self.evaluate.of is not None and GLOBAL not in self.evaluate.of:
                raise ConfigError("evaluate.of", "is without global, of which budget.target_loss is a loss")

    def _check_seeds(self) -> None:
        """The run's seed, and its components' own."""
        parts = {key: getattr(self, key) for key in ("data", "model", "compute", "faults")}
        parts |= {f"evaluate.sets.{name}": source for name, source in self.evaluate.sets.items()}
        seeds: dict[str, Optional[int]] = {"seed": self.seed}
        seeds |= {f"{key}.{name}": getattr(part, name, None) for key, part in parts.items() for name in SEEDS}
        for key, seed in seeds.items():
            right = not isinstance(seed, int) or 0 <= seed < 2**63  # anything else is a field of another meaning
            require(right, key, seed, "a number from 0 to 2^63 - 1")

    def _check_labels(self) -> None:
        for name, value in self.labels.items():
            right = _short(name) and (_short(value) if isinstance(value, str) else math.isfinite(value))
            problem = f"a name and a number or text, each one line of 1 to {LONGEST_LABEL} characters"
            require(right, "labels", {name: value}, problem)

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path("runs") / self.name if self.out is None else Path(self.out)


def _short(text: str) -> bool:
    return 0 < len(text) <= LONGEST_LABEL and text.isprintable()


def load_config(
    path: Optional[str], changes: Sequence[str] = (), plugins: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[Config, Plugins]:
    """The configuration in file `path` with `key=value` changes on top, and the plugins it uses.

    `plugins` are loaded in addition to installed ones (but those `without`) and those the file names, and become
    part of the configuration. UserError says what is wrong, with the full key.
    """
    layer: Section = {} if path is None else read(Path(expanded(path)))
    if "axes" in layer:
        raise UserError(f"{path} is a grid of runs, and no configuration of one: python -m halos.sweep {path}")
    return resolved(merge(layer, overrides(changes)), plugins, without)


def resolved(
    section: Section,
    plugins: Sequence[str] = (),
    without: Sequence[str] = (),
    load: Callable[[Sequence[str], Sequence[str]], Plugins] = Plugins,
) -> tuple[Config, Plugins]:
    """The configuration that `section` is on top of the defaults, and the plugins that it, or `plugins`, names.

    Installed plugins named in `without` are left out. `load` may know plugins from before.
    """
    merged = merge(DEFAULTS, section)
    named = named_plugins(interpolate(merged, only="plugins"), plugins)
    found = load(named, without)
    if refers(merged):
        merged = interpolate(Defaults(found).under(Config, merged))
    merged["plugins"] = named
    return resolve(inheriting(naming(merged, found), found), found), found


def resolve(section: Section, plugins: Plugins) -> Config:
    """The merged sections as a Config, by plugins that are loaded already; what the environment file says is in it."""
    builder = Builder(plugins)
    config = builder.build(Config, section, "")
    assert isinstance(config, Config), "built from its own class"
    with under("cluster"):
        config.cluster = with_env(config.cluster)
    config.dropped = builder.dropped
    return config


def named_plugins(section: Section, more: Sequence[str] = ()) -> list[str]:
    """The plugins that a section names under `plugins`, and `more`: each once, files by absolute paths."""
    named = [as_text(name) for _, name in inside(section.get("plugins"))]
    if not isinstance(section.get("plugins"), (list, type(None))) or not all(isinstance(name, str) for name in named):
        raise ConfigError("plugins", f"{shown(section['plugins'])} is not a list of files or modules")
    return unique(absolute(name) if name.endswith(".py") else str(name) for name in (*named, *more))
