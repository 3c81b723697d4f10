"""When a run's checkpoints are written; and, in a resumed run, the moment its replay becomes the real run again."""

from __future__ import annotations

import gc
import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from zlib import crc32

import torch

from halos.checkpoint import Checkpoint, CheckpointOptions
from halos.errors import UserError
from halos.params import Params
from halos.replay import Taped
from halos.simulation import Simulation
from halos.tape import Tape

logger = logging.getLogger(__name__)


class Checkpointing:
    """Called between events, when nothing is left to do at the moment.

    Resuming is a replay from the beginning with hollow parameters. At the event of the checkpoint the saved
    tensors are put into the parameters with the same serial numbers, and everything goes on for real.
    """

    def __init__(
        self,
        options: CheckpointOptions,
        folder: Path,
        facts: dict[str, Any],
        simulation: Simulation,
        taped: Taped,
        tape: Tape,
        initial: Params,
        earlier: Optional[Checkpoint],
    ) -> None:
        self._options = options
        self._folder = folder
        self._facts = facts  # config, versions, data: as in Checkpoint
        self._simulation = simulation
        self._taped = taped
        self._tape = tape
        self._serials = initial.layout.serials
        self._earlier = earlier
        self._crc = 0  # of the times of all events so far
        self._began = time.monotonic()
        self._written_at = self._began
        self._written_after = 0  # local steps
        self._device = torch.device("cpu") if initial.flat is None else initial.flat.device
        self.wall_before = 0.0 if earlier is None else earlier.wall_seconds
        self.on_live: Callable[[float], Any] = lambda time: None

    @property
    def replaying(self) -> bool:
        return self._earlier is not None

    def between(self) -> None:
        """Between two events: note the time of the last; go live, or write a checkpoint, if it is time to."""
        clock = self._simulation.clock
        self._crc = crc32(struct.pack("<d", clock.now), self._crc)
        if self._earlier is not None:
            if clock.happened == self._earlier.events:
                self._go_live(self._earlier)
        elif self._due():
            self._write()

    def _due(self) -> bool:
        options, trained = self._options, self._simulation.ledger.trained
        by_steps = options.every_local_steps is not None and trained - self._written_after >= options.every_local_steps
        by_time = (
            options.every_minutes is not None and time.monotonic() - self._written_at >= options.every_minutes * 60.0
        )
        return (by_steps or by_time) and not self._simulation.closing

    def _write(self) -> None:
        """A run goes on without a checkpoint that could not be written."""
        try:
            self.checkpoint().save(self._folder, self._options.keep)
        except UserError as problem:
            logger.error("%s; the run goes on", problem)
        self._written_at = time.monotonic()
        every = self._options.every_local_steps or 1
        self._written_after = self._simulation.ledger.trained // every * every

    def checkpoint(self) -> Checkpoint:
        """This moment."""
        simulation = self._simulation
        live = self._serials.live
        assert live is not None, "kept in every run that writes checkpoints"
        tensors = {serial: params.flat for serial, params in sorted(live.items()) if params.flat is not None}
        return Checkpoint(
            **self._facts,
            events=simulation.clock.happened,
            time=simulation.now,
            timeline=self._timeline(),
            numbers=torch.tensor(self._tape.numbers, dtype=torch.float64),
            params=tensors,
            executor=self._taped.state(),
            wall_seconds=self.wall_before + time.monotonic() - self._began,
        )

    def _timeline(self) -> dict[str, int]:
        """What a replay must have come to, in whole numbers."""
        simulation = self._simulation
        return {
            "times": self._crc,
            "parameters": self._serials.last,
            "jobs": simulation.jobs.count,
            "trained": simulation.ledger.trained,
            "committed": simulation.ledger.committed,
            "version": simulation.version,
        }

    def _go_live(self, earlier: Checkpoint) -> None:
        ours = self._timeline()
        different = [name for name, value in earlier.timeline.items() if ours.get(name) != value]
        if different:
            raise UserError(
                f"the run cannot be resumed: replayed up to {earlier.time:.6g} simulated seconds, its"
                f" {', '.join(different)} differ from the checkpoint's; does a plugin keep state outside the run, or"
                " branch on a number that it did not take through sim.scalar?"
            )
        self._tape.go_live()
        gc.collect()
        live = self._serials.live
        assert live is not None, "kept in every run that is resumed"
        lacking = [serial for serial in live if serial not in earlier.params] if earlier.params else []
        if lacking:
            raise UserError(
                f"the run cannot be resumed: {len(lacking)} sets of parameters are in use that the checkpoint does not"
                " hold; does a plugin keep parameters of an earlier run?"
            )
        for serial, tensor in earlier.params.items():
            if serial in live:
                live[serial].flat = tensor.to(self._device)
        self._taped.go_live(earlier.executor)
        self._earlier = None
        self._written_at = time.monotonic()
        every = self._options.every_local_steps or 1
        self._written_after = self._simulation.ledger.trained // every * every
        self.on_live(earlier.time)
