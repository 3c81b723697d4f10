"""`python -m halos.run CONFIG [key=value …]`: one run from its configuration to its summary."""

from __future__ import annotations

import logging
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any, Optional, Union

from halos.config.config import Config
from halos.observers import builtin
from halos.observers.tally import Tally
from halos.plugins.optional import call
from halos.plugins.registry import Plugins
from halos.resume.checkpoint import Checkpoint
from halos.run import folder as folders
from halos.run import summary
from halos.run.assembly import Run, assemble
from halos.run.folder import save_model, write_config
from halos.sim.limits import Hopeless
from halos.values.records import Summary
from halos.world.cluster import Cluster

logger = logging.getLogger("halos.run")


def run(
    config: Config, plugins: Plugins, resumed: Optional[Checkpoint] = None, overwrite: bool = False
) -> tuple[Summary, Cluster]:
    """Run `config`; its summary and the cluster it ran on. The run folder holds everything else.

    With `resumed` it goes on from that checkpoint, in the same folder (see halos.resume). With `overwrite` it takes the
    place of the run in its folder, if there is one, as soon as its own first files are written.

    A run that is interrupted, diverges or fails still writes its summary (`finished` says how it
    ended) before the exception goes on. Raises UserError before anything is written if something
    in the configuration cannot be used.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        replacing = overwrite and folders.holds_run(config.folder)
        if resumed is None and not replacing:
            folders.refuse_used(config.folder)
        else:
            stack.enter_context(folders.locked(config.folder))
            folders.refuse_unwritable(config.folder)
        assembled = assemble(config, plugins, resumed)
        stack.callback(assembled.close)
        tally = Tally(assembled.experiment.cluster)
        # pluggy calls whoever was registered last first: the books and the records, so that the rest may fail.
        for observer in reversed((tally, *builtin.build(config.observers))):
            plugins.manager.register(observer)
        if resumed is None:
            stack.enter_context(_begin(assembled, replacing))
            for line in config.dropped:
                logger.warning(line)
        else:
            began -= resumed.wall_seconds
            plugins.manager.hook.on_start(experiment=assembled.experiment)
        if assembled.checkpointer is not None:
            assembled.checkpointer.on_live = partial(_go_on, assembled)
        try:
            with _signals_between_records(assembled):
                assembled.train()
            _refuse_fruitless(assembled)
            save_model(assembled.simulation.params, config.executor, config.folder)
        except BaseException as error:
            if not assembled.replaying:
                try:
                    _finish(assembled, tally, began, summary.ended_by(error))
                except Exception as another:  # must not hide the first
                    logger.error("the end of the run could not be recorded: %s", another)
            raise
        return _finish(assembled, tally, began, True), assembled.experiment.cluster


@contextmanager
def _signals_between_records(assembled: Run) -> Iterator[None]:
    """Ctrl-C and SIGTERM do what they do when all who listen have heard of a record, or none: so all end alike."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    called = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():  # nobody is interrupted there
        called = {}
    for number, handler in called.items():
        signal.signal(number, partial(_put_off, assembled, handler))
    try:
        yield
    finally:
        for number, handler in called.items():
            signal.signal(number, handler)


def _put_off(assembled: Run, handler: Callable[[int, Optional[FrameType]], Any], number: int, frame: Any) -> None:
    freeing = frame is not None and frame.f_code.co_filename == weakref.__file__  # an error would be lost
    assembled.simulation.between_records(partial(handler, number, frame), later=freeing)


def _finish(assembled: Run, tally: Tally, began: float, finished: Union[bool, str]) -> Summary:
    """The summary, and everybody told of it; `began` on the wall's clock."""
    made = summary.summarise(assembled, tally, time.monotonic() - began, finished)
    if made["skipped_steps"] is not None:
        logger.info("fp16's loss scaling skipped %d local steps", made["skipped_steps"])
    assembled.plugins.manager.hook.on_finish(summary=made)
    return made


@contextmanager
def _begin(assembled: Run, replacing: bool) -> Iterator[None]:
    """The run folder, locked, config.yaml in it, and the observers told; if that fails, all is as it was."""
    experiment = assembled.experiment
    with ExitStack() as stack:
        with folders.replaced(experiment.folder) if replacing else folders.made(experiment.folder, stack):
            write_config(experiment)
            assembled.plugins.manager.hook.on_start(experiment=experiment)
        yield


def _go_on(assembled: Run, time: float) -> None:
    """A resumed run goes on for real, from virtual `time`: under its present configuration."""
    assembled.plugins.manager.hook.on_resume(time=time)
    (assembled.experiment.folder / "summary.json").unlink(missing_ok=True)  # it is not over, as that may have said
    write_config(assembled.experiment)


def _refuse_fruitless(assembled: Run) -> None:
    """Nothing came of it: no end to be called one, whatever the policy says."""
    simulation = assembled.simulation
    ledger = simulation.ledger
    spent = simulation.clock.ending or simulation.now >= simulation.limits.seconds  # it had no time to commit anything
    if ledger.trained and not ledger.committed and not spent:
        why = simulation.collectives.lost
        because = "has the policy forgotten sim.commit?" if why is None else f"collectives were lost: {why}"
        raise Hopeless(f"{ledger.trained} local steps trained and none committed; {because}")
    if ledger.trained and (call(assembled.config.executor, "skipped_steps") or 0) >= ledger.trained:
        raise Hopeless(
            f"fp16's loss scaling skipped all of the {ledger.trained} local steps, so nothing was learned;"
            " train.precision=bf16 has no such limits"
        )
