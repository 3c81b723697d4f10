"""Run a configuration in memory and look at everything that happened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, Optional, Union

from halos.config.config import Config, resolved
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.run.assembly import assemble
from halos.sim.simulation import Simulation
from halos.values.records import GLOBAL, Commit, Evaluation, LostJob, Transfer, Update

# Nothing is written.
UNWRITTEN: Section = {"checkpoint": {"every_minutes": None, "at_end": False}}

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


Heard = Union[Update, LostJob, Transfer, Commit, Evaluation]


class Recording:
    """A run and everything its observers heard, in order: all of it, and by kind."""

    def __init__(self, config: Config, experiment: Experiment, simulation: Simulation) -> None:
        self.config = config
        self.experiment = experiment
        self.simulation = simulation
        self.heard: list[Heard] = []
        self.updates: list[Update] = []
        self.lost: list[LostJob] = []
        self.transfers: list[Transfer] = []
        self.commits: list[Commit] = []
        self.evaluations: list[Evaluation] = []

    @property
    def global_commits(self) -> list[Commit]:
        """The commits of the global server."""
        return [commit for commit in self.commits if commit.server == GLOBAL]

    @property
    def thetas(self) -> list[float]:
        """The first parameter of the global model after each of its commits: all there is, in a model of size 1."""
        return [float(commit.params.flat[0]) for commit in self.global_commits if commit.params.flat is not None]

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.heard.append(update)
        self.updates.append(update)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self.heard.append(lost)
        self.lost.append(lost)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self.heard.append(transfer)
        self.transfers.append(transfer)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self.heard.append(commit)
        self.commits.append(commit)

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self.heard.append(evaluation)
        self.evaluations.append(evaluation)


def tiny(**changes: Any) -> Section:
    """The smallest run there is, with some sections changed (as a layer above would)."""
    return merge(TINY, changes)


def two_workers(rounds: int = 5, **changes: Any) -> Section:
    """The smallest run in which workers differ: one takes 2 steps of 0.1 a round and the other, half as fast, 1.

    In float64, on one parameter with its optimum at 1, from 0: a round from θ leaves 0.81 and 0.9 of 1 − θ.
    """
    different = tiny(
        model={"dtype": "float64", "size": 1},
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        steps={"name": "by_speed", "base": 2},
        budget={"local_steps": 3 * rounds},
    )
    return different | changes


def record(sections: Section, plugins: Sequence[str] = (), policy: Optional[Any] = None) -> Recording:
    """Run a configuration, writing nothing; `policy` (an instance) takes the place of the configured one."""
    config, found = resolved(merge(sections, UNWRITTEN), plugins)
    if policy is not None:
        config.policy = policy
    run = assemble(config, found)
    recording = Recording(config, run.experiment, run.simulation)
    found.manager.register(recording)
    with closing(run):
        run.train()
    return recording


def tiny_run(**changes: Any) -> Recording:
    """Run `tiny(**changes)`; plugins are named as in a config, `plugins=["my_idea.py"]`."""
    return record(tiny(**changes))
