"""Put a run together from its configuration; whatever does not fit is said before anything is written."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

import torch

from halos.config.config import Config
from halos.config.sections import to_sections
from halos.data.order import DataOrder
from halos.errors import ConfigError, UserError, under
from halos.observers.experiment import Experiment
from halos.plugins.optional import call, has
from halos.plugins.registry import Plugins, versions
from halos.resume.checkpoint import Checkpoint
from halos.resume.checkpointer import Checkpointer
from halos.resume.tape import ReplayDiffers
from halos.rules.telling import merge_rules
from halos.rules.weights import Uniform
from halos.seeds import own_seed
from halos.sim.parts import Parts, unchanged
from halos.sim.simulation import Simulation
from halos.training import Task
from halos.values.params import Params
from halos.world import cluster as clusters
from halos.world.cluster import Cluster
from halos.world.network import NetworkModel

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A run put together: its simulation, the facts about it for observers, and what its checkpoints take."""

    config: Config
    plugins: Plugins
    experiment: Experiment
    simulation: Simulation
    checkpointer: Optional[Checkpointer]  # if checkpoints are wanted, or it goes on from one

    @property
    def replaying(self) -> bool:
        """Whether the run is still replaying what was before its checkpoint: nothing has been touched yet."""
        return self.checkpointer is not None and self.checkpointer.replaying

    def train(self, between: Optional[Callable[[], None]] = None) -> None:
        """Run to the end; a resumed run replays its beginning first. Raises UserError if the replay is another run.

        `between` takes the place of the checkpointer's own (in tests).
        """
        if between is None and self.checkpointer is not None:
            between = self.checkpointer.between
        try:
            self.simulation.run(self.config.policy, between)
            if self.replaying:
                raise ReplayDiffers("it ends before its checkpoint")
        except Exception as error:
            if self.checkpointer is not None and self.checkpointer.replaying and not isinstance(error, UserError):
                raise self.checkpointer.refusal(error) from error
            raise

    def close(self) -> None:
        """Free what was opened."""
        self.config.executor.close()


def assemble(config: Config, plugins: Plugins, earlier: Optional[Checkpoint] = None) -> Run:
    """The run that `config` describes, going on from an `earlier` checkpoint if that is given.

    Opens the executor, and so the data, where training is real; the caller closes the run.
    """
    cluster = connected(config, plugins)
    for component in (
        config.policy,
        config.steps,
        config.compute,
        config.network,
        config.codec,
        config.weights,
        config.aggregate,
    ):
        plugins.listen(component)  # from now on, it hears what happens
    with under("data"):
        order = DataOrder(config.data.shards, cluster)
    tokens_per_step = config.train.batch_size * config.data.sequence_length
    wire_bytes = _wire_bytes(config)
    try:
        params = _open(config, cluster)
        _check_budget(config, params)
        if config.faults.inner_state == "gone" and not (params.hollow or has(config.executor, "forget")):
            raise ConfigError("faults.inner_state", "cannot be gone: this executor has no method `forget`; inline has")
        real, checkpointer = not params.hollow, _checkpointer(config, params, earlier)
        parts = Parts(
            cluster=cluster,
            network=config.network,
            compute=config.compute,
            steps=config.steps,
            weights=config.weights,
            aggregate=config.aggregate,
            codec=config.codec,
            executor=config.executor if checkpointer is None else checkpointer.executor,
            order=order,
            budget=config.budget,
            batch_size=config.train.batch_size,
            global_batch_size=config.train.global_batch_size or len(cluster.workers) * config.train.batch_size,
            tokens_per_step=tokens_per_step,
            seed=config.seed,
            wire_bytes=wire_bytes,
            evaluate=config.evaluate,
            hook=plugins.manager.hook,
            components=tuple(plugins.listening),
            faults=config.faults,
            record=config.record,
            rate=partial(config.train.schedule.at, config.train.optimizer.lr),
            real=real,
            aside=unchanged if checkpointer is None else checkpointer.aside,
        )
        experiment = Experiment(
            name=config.name,
            folder=config.folder,
            config=to_sections(config, plugins),
            policy=plugins.name_of(type(config.policy)) or type(config.policy).__name__,
            seed=config.seed,
            cluster=cluster,
            local_steps=config.budget.steps(tokens_per_step),
            trained_steps=config.budget.trained(tokens_per_step),
            seconds=config.budget.seconds,
            tokens_per_step=tokens_per_step,
            parameters=params.size,
            loss_average_steps=config.train.loss_average_steps,
            real=real,
            versions=versions(plugins),
            faults=config.faults,
            resumed_at=None if earlier is None else earlier.time,
        )
        simulation = Simulation(parts, params)
        _prepare(config, simulation)
        if checkpointer is not None:
            checkpointer.follow(simulation, experiment.config, versions(plugins, watching=False))
        return Run(config, plugins, experiment, simulation, checkpointer)
    except BaseException:
        config.executor.close()
        raise


def connected(config: Config, plugins: Plugins) -> Cluster:
    """The cluster, told to whoever must know it. Raises UserError for what does not fit it, or another component."""
    with under("cluster"):
        cluster = clusters.build(config.cluster)
    with under("network"):
        call(config.network, "seeded", own_seed(config.network, config.seed))
        config.network.connect(cluster)
        _check_flows(config.network)
    with under("compute"):
        config.compute.connect(cluster, own_seed(config.compute, config.seed))
    with under("faults"):
        config.faults.connect(cluster, own_seed(config.faults, config.seed))
    with under("steps"):
        call(config.steps, "connect", cluster)
    with under("weights"):
        call(config.weights, "connect", cluster)
    with under("aggregate"):
        call(config.aggregate, "connect", cluster)
    if has(config.faults, "sends") and getattr(config.aggregate, "sharded", False):
        logger.warning("aggregate.sharded: faults make workers send what is not so; they are believed about their part")
    with under("policy"):
        call(config.policy, "check", cluster)
    _check_weights(config, plugins)
    return cluster


def _checkpointer(config: Config, params: Params, earlier: Optional[Checkpoint]) -> Optional[Checkpointer]:
    """Who writes checkpoints, if they are wanted (by default: wherever they can be) or one is gone on from."""
    able = has(config.executor, "state") and has(config.executor, "restore")
    if earlier is None and not (config.checkpoint.wanted and (able or not config.checkpoint.by_default)):
        return None
    folder, observers = config.folder / "checkpoints", config.observers.extra
    return Checkpointer(config.checkpoint, folder, config.executor, params, earlier, observers)


def _prepare(config: Config, simulation: Simulation) -> None:
    """Let components say what does not fit the run, now that there is all of it."""
    for key in ("policy", "steps", "weights", "aggregate", "codec"):
        with under(key):
            call(getattr(config, key), "prepare", simulation)
    with under("policy"):
        for rule in merge_rules(config.policy):
            call(rule, "prepare", simulation)
    for name, observer in config.observers.extra.items():
        with under(f"observers.extra.{name}"):
            call(observer, "prepare", simulation)
    with under("evaluate"):
        simulation.evaluations.check()


def _check_flows(network: NetworkModel) -> None:
    """Refuse a network model that answers in flows, but not to all that is asked then."""
    if has(network, "capacity"):
        for method in ("message_phases", "collective_phases"):
            if not has(network, method):
                raise ConfigError(
                    "", f"{type(network).__name__} has a method `capacity` and no `{method}`, which belongs to it"
                )


def _check_weights(config: Config, plugins: Plugins) -> None:
    """Refuse weights that a policy or an aggregator would ignore: it says so by `weighs = False`."""
    if type(config.weights) is Uniform:
        return
    for kind, component in (("policy", config.policy), ("aggregator", config.aggregate)):
        if getattr(component, "weighs", True) is False:
            weights, other = plugins.name_of(type(config.weights)), plugins.name_of(type(component))
            raise ConfigError("weights", f"{weights!r} has no part in {kind} {other}; leave it at uniform")


def _wire_bytes(config: Config) -> Optional[int]:
    wire_bytes: Any = getattr(config.model, "wire_bytes", None)
    if wire_bytes is not None and (not isinstance(wire_bytes, int) or wire_bytes < 0):
        raise ConfigError("model.wire_bytes", f"{wire_bytes!r} is not a number of bytes")
    return wire_bytes


def _open(config: Config, cluster: Cluster) -> Params:
    """The executor, opened; its initial parameters."""
    task = Task(config.model, config.data, config.train, cluster, config.seed, config.evaluate.sets)
    try:
        return config.executor.open(task)
    except (UserError, KeyboardInterrupt):
        raise  # before torch is asked for anything: it may not be loaded yet
    except (MemoryError, torch.OutOfMemoryError) as error:
        said = next(iter(str(error).splitlines()), "") or "no more can be had"
        raise UserError(f"out of memory while model and data were opened: {said}; take less of either") from error


def _check_budget(config: Config, params: Params) -> None:
    """Refuse a budget that nothing can ever spend."""
    budget = config.budget
    if budget.target_loss is None:
        return
    if config.data.validation_samples == 0:
        raise ConfigError("budget.target_loss", "is a validation loss, but data.validation_samples is 0")
    if params.hollow and all(map(math.isinf, (budget.steps(1), budget.trained(1), budget.seconds))):
        raise ConfigError(
            "budget",
            "holds only a target_loss, but this executor trains nothing that could reach it; give local_steps,"
            " tokens or simulated_hours as well",
        )
