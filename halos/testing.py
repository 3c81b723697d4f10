"""For tests of plugins (and of halos): run a configuration in memory and look at everything that happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from halos.assembly import assemble
from halos.config import Config, resolve
from halos.experiment import Experiment
from halos.hookspecs import hookimpl
from halos.layers import DEFAULTS, Section, merge
from halos.plugins import Plugins
from halos.records import Commit, Evaluation, Transfer, Update
from halos.simulation import Simulation

# Two workers of one region, a quadratic with its optimum at 1, free communication: change what matters.
TINY: Section = {
    "cluster": {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
    "network": {"bandwidth_gbps": float("inf")},
    "model": {"name": "quadratic", "size": 2, "optimum": 1.0, "start": 0.0},
    "data": {"name": "synthetic", "samples": 64, "sequence_length": 8, "validation_samples": 8},
    "train": {
        "batch_size": 1,
        "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
        "clip": 0.0,
        "loss_average_steps": 1,
    },
    "steps": {"name": "fixed", "base": 2},
    "policy": {"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}},
    "budget": {"local_steps": 8},
}


class Recording:
    """A run and everything its observers heard, in order."""

    def __init__(self, config: Config, experiment: Experiment, simulation: Simulation) -> None:
        self.config = config
        self.experiment = experiment
        self.simulation = simulation
        self.updates: list[Update] = []
        self.transfers: list[Transfer] = []
        self.commits: list[Commit] = []
        self.evaluations: list[Evaluation] = []

    @property
    def globally(self) -> list[Commit]:
        """The commits of the global server."""
        return [commit for commit in self.commits if commit.server == "global"]

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.updates.append(update)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self.commits.append(commit)

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def tiny(**changes: Any) -> Section:
    """The smallest run there is, with some sections changed (as a layer above would)."""
    return merge(TINY, changes)


def record(sections: Section, plugins: Sequence[str] = (), policy: Optional[Any] = None) -> Recording:
    """Run a configuration, writing nothing; `policy` (an instance) takes the place of the configured one."""
    found = Plugins(list(plugins))
    config = resolve(merge(DEFAULTS, sections), found)
    if policy is not None:
        config.policy = policy
    experiment, simulation = assemble(config, found)
    recording = Recording(config, experiment, simulation)
    found.manager.register(recording)
    try:
        simulation.run(config.policy)
    finally:
        config.executor.close()
    return recording
