"""`python -m halos.run CONFIG [key=value …]`: one run from its configuration to its summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Optional, Union

from halos.config.config import Config
from halos.errors import UserError
from halos.observers import builtin
from halos.observers.experiment import Experiment
from halos.observers.tally import Tally
from halos.plugins.registry import Plugins
from halos.resume.checkpoint import Checkpoint
from halos.resume.tape import Strayed
from halos.run import folder as folders
from halos.run import summary
from halos.run.assembly import assemble
from halos.run.folder import save_model, write_config
from halos.sim.limits import Hopeless
from halos.sim.simulation import Simulation
from halos.values.records import Summary
from halos.world.cluster import Cluster

logger = logging.getLogger("halos.run")


def run(config: Config, plugins: Plugins, resumed: Optional[Checkpoint] = None) -> tuple[Summary, Cluster]:
    """Run `config`; its summary and the cluster it ran on. The run folder holds everything else.

    With `resumed` it goes on from that checkpoint, in the same folder (see halos.resume).

    A run that is interrupted, diverges or fails still writes its summary (`finished` says how it
    ended) before the exception goes on. Raises UserError before anything is written if something
    in the configuration cannot be used.
    """
    if resumed is None:
        folders.refuse_used(config.folder)
    began = time.monotonic()
    with ExitStack() as stack:
        if resumed is not None:
            stack.enter_context(folders.locked(config.folder))
            folders.refuse_unwritable(config.folder)
        experiment, simulation, checkpointing = assemble(config, plugins, resumed)
        stack.callback(config.executor.close)
        tally = Tally(experiment.cluster)
        # pluggy calls whoever was registered last first: the books and the records, so that the rest may fail.
        for observer in reversed((tally, *builtin.build(config.observers))):
            plugins.manager.register(observer)
        if resumed is None:
            stack.enter_context(_begin(experiment, plugins))
        else:
            plugins.manager.hook.on_start(experiment=experiment)
        between = None
        if checkpointing is not None:
            between = checkpointing.between
            checkpointing.on_live = partial(_go_on, experiment, plugins)
            began -= checkpointing.wall_before

        def finish(finished: Union[bool, str]) -> Summary:
            made = summary.summarise(config, experiment, simulation, tally, time.monotonic() - began, finished)
            plugins.manager.hook.on_finish(summary=made)
            return made

        try:
            simulation.run(config.policy, between)
            if checkpointing is not None and checkpointing.replaying:
                raise Strayed("it ends before its checkpoint")
            _refuse_fruitless(config, simulation)
            save_model(simulation, config.folder)
        except BaseException as error:
            if checkpointing is not None and checkpointing.replaying:  # nothing has been touched yet
                if isinstance(error, Exception) and not isinstance(error, UserError):
                    raise checkpointing.refusal(error) from error
                raise
            try:
                finish(summary.ended_by(error))
            except Exception as another:  # must not hide the first
                logger.error("the end of the run could not be recorded: %s", another)
            raise
        return finish(True), experiment.cluster


@contextmanager
def _begin(experiment: Experiment, plugins: Plugins) -> Iterator[None]:
    """The run folder, locked, config.yaml in it, and the observers told; if that fails, nothing is left."""
    with ExitStack() as stack:
        with folders.made(experiment.folder, stack):
            write_config(experiment)
            plugins.manager.hook.on_start(experiment=experiment)
        yield


def _go_on(experiment: Experiment, plugins: Plugins, time: float) -> None:
    """A resumed run goes on for real, from virtual `time`: under its present configuration."""
    plugins.manager.hook.on_resume(time=time)
    (experiment.folder / "summary.json").unlink(missing_ok=True)  # it is not over, as that may have said
    write_config(experiment)


def _refuse_fruitless(config: Config, simulation: Simulation) -> None:
    """Nothing came of it: no end to be called one, whatever the policy says."""
    ledger = simulation.ledger
    if ledger.trained and not ledger.committed and simulation.now < config.budget.seconds:
        why = simulation.lost_collective
        because = "has the policy forgotten sim.commit?" if why is None else f"collectives were lost: {why}"
        raise Hopeless(f"{ledger.trained} local steps trained and none committed; {because}")
