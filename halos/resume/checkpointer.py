"""Writes checkpoints; ends a replay, at the moment at which it becomes the real run again."""

from __future__ import annotations

import gc
import logging
import struct
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Optional
from weakref import WeakValueDictionary
from zlib import crc32

import numpy as np
import pluggy
import torch

from halos.config.config import CheckpointOptions
from halos.errors import ConfigError, UserError
from halos.resume import observed
from halos.resume.checkpoint import Checkpoint
from halos.resume.replay import Taped
from halos.resume.tape import ReplayDiffers, Tape
from halos.sim.simulation import Simulation
from halos.training import Executor
from halos.values.params import Params
from halos.values.rounding import latest

logger = logging.getLogger(__name__)


class Checkpointer:
    """One run's. `between` is called before each timed event, when nothing is left to do at the moment, and `asked`
    whenever it is asked whether the budget is spent. At these moments a checkpoint can be written; the first of them
    at which the budget is spent is the last of which a run with a larger budget can go on.

    Resuming is a replay from the beginning with hollow parameters. At the moment of the checkpoint the saved
    tensors are put into the parameters with the same serial numbers, and everything goes on for real.
    """

    def __init__(
        self,
        options: CheckpointOptions,
        folder: Path,
        executor: Executor,
        initial: Params,
        earlier: Optional[Checkpoint],
        observers: Mapping[str, Any],
    ) -> None:
        """Takes over a run's parameters before anything is made of the `initial` ones (hollow from now on, if they
        are to come from an `earlier` checkpoint). ConfigError if executor or data do not allow it."""
        self._observers = observers
        self.wall_before = 0.0 if earlier is None else earlier.wall_seconds
        self.on_live: Callable[[float], Any] = lambda time: None
        self._options = options
        self._folder = folder
        self._tape = Tape(recording=True, earlier=None if earlier is None else earlier.numbers.tolist())
        self._taped = Taped(executor, self._tape)
        self._data = executor.describe()
        if earlier is not None and self._data != earlier.data:
            raise ConfigError(
                "data", f"is not what the run was trained on: {self._data}, at the checkpoint {earlier.data}"
            )
        self._device = torch.device("cpu") if initial.flat is None else initial.flat.device
        # Who bears which serial number, of the parameters in use, where there is anything to save of them.
        self._live: Optional[WeakValueDictionary[int, Params]] = None
        if initial.flat is not None:
            self._live = WeakValueDictionary({initial.serial: initial})
        self._serials = initial.layout.serials
        self._serials.give, self._serials.number = self._give, self._tape.number
        if earlier is not None:
            initial.flat = None
        self._earlier = earlier
        self._over = False  # whether the budget is spent: with a larger one, all would have been different from there
        self._from_the_start = options.by_default and self._live is None
        self._moments = 0
        self._crc = 0  # of all moments so far: when, and how many parameters and numbers there were by then
        self._began = time.monotonic()
        self._written_at = self._began
        self._written_after = 0  # local steps

    @property
    def executor(self) -> Executor:
        """The executor that the run must use in place of its own."""
        return self._taped

    def aside(self, listener: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return `listener`, called so that it leaves no trace in the run."""
        return self._tape.beside(listener)

    def follow(self, simulation: Simulation, config: dict[str, Any], versions: dict[str, str]) -> None:
        """Attach to the run as it was put together; `config` is the resolved configuration."""
        self._simulation = simulation
        simulation.limits.asked = self.asked
        self._facts = {"config": config, "versions": versions, "data": self._data}

    def _give(self, params: Params) -> int:
        """Return the next serial number; -1 for parameters that are no part of the run."""
        if self._tape.aside:
            return -1
        serials = self._serials
        serials.last += 1
        if self._live is not None:
            self._live[serials.last] = params
        return serials.last

    @property
    def replaying(self) -> bool:
        return self._earlier is not None

    def between(self) -> None:
        """Between two events: note the moment; go live, or write a checkpoint, if it is time to."""
        if not self._tape.recording:
            return
        self._note()
        if self._earlier is None and self._due():
            self._write()

    def asked(self, over: bool) -> None:
        """Note the moment, as `between` does; write a checkpoint if the budget is `over` and one is wanted then."""
        if self._over or not self._tape.recording:
            return
        self._note()
        self._over = over
        if self._earlier is not None:
            return
        if self._from_the_start:  # of a run that trains nothing: to do it all again takes no longer than a replay
            self._write()
            self._let_go()
        elif over and self._options.at_end:
            self._write()

    def _note(self) -> None:
        """Count the moment; in a replay, go live if it is the checkpoint's."""
        self._moments += 1
        moment = struct.pack("<dqq", self._simulation.now, self._serials.last, self._tape.count)
        self._crc = crc32(moment, self._crc)
        if self._earlier is not None and self._moments == self._earlier.timeline["moments"]:
            self._go_live(self._earlier)

    def _let_go(self) -> None:
        """There will be no more checkpoints: keep nothing for them."""
        self._serials.give = self._serials.number = None
        self._tape.stop()
        self._taped.let_go()
        self._simulation.limits.asked = None

    def _due(self) -> bool:
        options, trained = self._options, self._simulation.ledger.trained
        by_steps = options.every_local_steps is not None and trained - self._written_after >= options.every_local_steps
        by_time = (
            options.every_minutes is not None and time.monotonic() - self._written_at >= options.every_minutes * 60.0
        )
        # A run that ends by time ends between two events.
        ends = options.at_end and self._simulation.clock.next > latest(self._simulation.limits.seconds)
        return (by_steps or by_time or ends) and not self._over

    def _write(self) -> None:
        """A run goes on without a checkpoint that could not be written."""
        try:
            self.checkpoint().save(self._folder, self._options.keep)
        except UserError as problem:
            logger.error("%s; the run goes on", problem)
        self._restart_intervals()

    def _restart_intervals(self) -> None:
        self._written_at = time.monotonic()
        every = self._options.every_local_steps or 1
        self._written_after = self._simulation.ledger.trained // every * every

    def checkpoint(self) -> Checkpoint:
        """This moment."""
        simulation = self._simulation
        live = sorted(self._alive().items())
        tensors = {serial: params.flat for serial, params in live if params.flat is not None}
        return Checkpoint(
            **self._facts,
            events=simulation.clock.happened,
            time=simulation.now,
            timeline=self._timeline(),
            numbers=torch.from_numpy(np.array(self._tape.numbers)),
            params=tensors,
            executor=self._taped.state(),
            observers=self._tape.beside(observed.states)(self._observers),
            wall_seconds=self.wall_before + time.monotonic() - self._began,
        )

    def refusal(self, error: Exception) -> UserError:
        """Return the UserError that explains an error during the replay: a plugin's line, if any, and likely causes."""
        where = blamed(error)
        what = str(error) if isinstance(error, ReplayDiffers) else f"{type(error).__name__}: {error}"
        return UserError(
            f"the run cannot be resumed: replayed without tensors, {where}{what}. Does a plugin keep state outside the"
            " run, or tensors outside of parameters, or branch on a number that did not come through norm(), dot() or"
            " sim.scalar?"
        )

    def _timeline(self) -> dict[str, int]:
        """Return the counts that a replay must have reached at the checkpoint."""
        simulation = self._simulation
        return {
            "moments": self._moments,
            "events": self._crc,
            "parameters": self._serials.last,
            "jobs": simulation.jobs.count,
            "trained": simulation.ledger.trained,
            "committed": simulation.ledger.committed,
            "version": simulation.version,
        }

    def _alive(self) -> dict[int, Params]:
        """Return the parameters in use by serial number; of a copy made by keys, one might be freed half-way."""
        return dict(({} if self._live is None else self._live).items())

    def _lacking(self, earlier: Checkpoint) -> list[int]:
        """Return the serial numbers of parameters in use that the checkpoint does not hold."""
        return [serial for serial in self._alive() if serial not in earlier.params]

    def _go_live(self, earlier: Checkpoint) -> None:
        ours = self._timeline()
        different = sorted(name for name in {*ours, *earlier.timeline} if ours.get(name) != earlier.timeline.get(name))
        if earlier.time != self._simulation.now:
            different.append("time")
        if different:
            raise ReplayDiffers(f"by {earlier.time:.6g} simulated seconds its {', '.join(different)} differ")
        self._tape.go_live()
        if lacking := self._lacking(earlier):
            gc.collect()  # unreachable ones may not have been freed yet
            lacking = self._lacking(earlier)
        if lacking:
            raise ReplayDiffers(
                f"{len(lacking)} sets of parameters are in use that were not; does an observer keep them?"
            )
        live = self._alive()
        for serial, params in live.items():
            if len(earlier.params[serial]) != params.size:
                raise UserError(
                    f"the run cannot be resumed: its checkpoint holds {len(earlier.params[serial])} numbers where there"
                    f" are {params.size} parameters"
                )
        for serial, params in live.items():
            params.flat = earlier.params[serial].to(self._device)
        self._taped.go_live(earlier.executor)
        self._restart_intervals()
        self._tape.beside(observed.restore)(self._observers, earlier.observers)
        self._tape.beside(self.on_live)(earlier.time)
        self._earlier = None
        if self._options.wanted and not self._from_the_start and self._facts["config"] != earlier.config:
            self._write()  # or a run that is killed soon would go on as it was configured before
        earlier.params, earlier.executor = {}, {}  # whoever loaded it must not keep all tensors alive


def blamed(error: Exception) -> str:
    """Return `name (file:line): ` of the innermost frame of a policy or plugin that an error went through, if any."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not ours(Path(frame.filename))]
    return f"{frames[-1].name} ({frames[-1].filename}:{frames[-1].lineno}): " if frames else ""


@cache  # is asked again and again, of few files
def ours(file: Path) -> bool:
    """Whether code is neither a policy's nor a plugin's: the core of halos, or a library it uses."""
    core = Path(__file__).parents[1]
    built_in = core in file.parents and core / "policies" not in file.parents
    return built_in or any(Path(str(module.__file__)).parent in file.parents for module in (torch, np, pluggy))
