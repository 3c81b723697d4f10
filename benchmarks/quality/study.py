"""What is compared: methods, seeds, and the hyper-parameters that were tried."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from halos.config.layers import merge, overrides

CONFIGS = Path(__file__).parent / "configs"
OUTER = "policy.outer.lr"


@dataclass(frozen=True)
class Method:
    """A config, `key=value` changes to it, and the one hyper-parameter that was tuned: its key and the values tried."""

    name: str
    title: str
    config: Path
    changes: tuple[str, ...] = ()
    tuned: str = ""
    tried: tuple[float, ...] = ()

    def tries(self) -> list[Method]:
        """This method once with each value tried."""
        return [
            Method(f"{self.name}@{value:g}", self.title, self.config, (*self.changes, f"{self.tuned}={value:g}"))
            for value in self.tried
        ]


@dataclass(frozen=True)
class Part:
    """Runs that are compared with each other: every method with every seed, `changes` made to all."""

    name: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    changes: tuple[str, ...] = ()


def method(name: str, title: str, tuned: str, *tried: float) -> Method:
    return Method(name, title, CONFIGS / f"{name}.yaml", (), tuned, tried)


def of_two(name: str, title: str, policy: str, lr: float) -> Method:
    return Method(name, title, CONFIGS / "two_workers.yaml", (f"policy.name={policy}", f"{OUTER}={lr}"))


# A method more: its config in configs/, and a line here. All had the same effort: four values of one number around
# the published one, a factor of two apart; and more of them while the best was the first or the last.
METHODS = (
    method("diloco", "DiLoCo", OUTER, 0.175, 0.35, 0.7, 1.4),
    method("diloco_dynupd", "DiLoCo + DynUpd", OUTER, 0.175, 0.35, 0.7, 1.4),
    method("one_step_delay", "delayed", OUTER, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8),
    method("eager_diloco", "eager", OUTER, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8),
    method("overlap_local_sgd", "overlap", "policy.pullback", 0.075, 0.15, 0.3, 0.45, 0.6, 0.75),
    method("async_local_sgd", "async", OUTER, 0.4, 0.8, 1.6, 3.2, 6.4),
    method("halos", "HALoS", OUTER, 0.075, 0.15, 0.3, 0.6),
    method("streaming_diloco", "Streaming", OUTER, 0.1, 0.2, 0.4, 0.8, 1.6),
    method("streaming_fp4", "Streaming, FP4", OUTER, 0.1, 0.2, 0.4, 0.8, 1.6),
    method("dilocox", "DiLoCoX", OUTER, 0.05, 0.1, 0.2, 0.4),
    method("data_parallel", "data-parallel", "train.optimizer.lr", 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
)
# The setting of arXiv 2502.12996's comparison: two workers, outer learning rate 0.4.
PAIR = (
    of_two("diloco", "DiLoCo, 0.4", "diloco", 0.4),
    of_two("one_step_delay", "delayed, 0.4", "one_step_delay", 0.4),
    of_two("lower_delay", "delayed, 0.2", "one_step_delay", 0.2),
    of_two("eager_diloco", "eager, 0.4", "eager_diloco", 0.4),
)
# Is it the outer momentum that a delay does not go with? The same, without it.
PLAIN = tuple(
    Method(each, title, CONFIGS / f"{each}.yaml", ("policy.outer.momentum=0.0",), OUTER, (0.25, 0.5, 1.0))
    for each, title in (("diloco", "DiLoCo"), ("one_step_delay", "delayed"), ("eager_diloco", "eager"))
)
MARGINS = (0.4, 0.3, 0.2, 0.1)  # nats above DiLoCo's final loss: how long does it take to get there?
HALF = ("budget.local_steps=4096", "train.schedule.total=256")

PARTS = (
    Part("main", METHODS, (1, 2, 3)),
    Part("two_workers", PAIR, (1, 2, 3)),
    Part("no_momentum", tuple(each for one in PLAIN for each in one.tries()), (0,), HALF),
    Part("tuning", tuple(each for one in METHODS for each in one.tries()), (0,), HALF),  # a seed that is not compared
)


@dataclass(frozen=True)
class Run:
    """One run of the study; what it was set to decides whether a recorded one is still the same."""

    part: Part
    method: Method
    seed: int

    @property
    def name(self) -> str:
        return f"{self.part.name}/{self.method.name}/{self.seed}"

    @property
    def changes(self) -> list[str]:
        return [*self.part.changes, *self.method.changes, f"seed={self.seed}"]

    @property
    def settings(self) -> str:
        """A hash of what the config, all it extends and the changes come to."""
        text = json.dumps(merge(written(self.method.config), overrides(self.changes)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(config: Path) -> dict[str, Any]:
    """A config and what it extends as one section; paths stay as they are, so that it says the same everywhere."""
    section: dict[str, Any] = yaml.safe_load(config.read_text())
    below = section.pop("extends", None)
    section.pop("name", None)
    return merge(written(config.parent / below), section) if below else section


def runs(part: Part, methods: list[str] | None = None, seeds: list[int] | None = None) -> list[Run]:
    """Those of a part; only of `methods` (a tuned one stands for all its values) and `seeds`, if given."""
    return [
        Run(part, each, seed)
        for seed in part.seeds
        for each in part.methods
        if (not methods or each.name.split("@")[0] in methods) and (not seeds or seed in seeds)
    ]
