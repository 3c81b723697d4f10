"""Runs that are cut at an event and resumed, in memory: each must be the run that was never cut, and one that ended
with a smaller budget, extended, the run that had the larger one.

What is not restored is traced to a line: that of the policy, or plugin, that made the first parameters
which are others than before.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Optional
from unittest import mock
from zlib import crc32

import torch

from halos.config.config import resolved
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.hooks import hookimpl
from halos.resume.checkpoint import Checkpoint, load_checkpoint
from halos.resume.checkpointer import ours
from halos.run.assembly import assemble
from halos.testing.recording import UNWRITTEN
from halos.testing.witness import content, first_difference
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, LostJob, Transfer, Update

# As if; this module says when.
CHECKPOINTED: Section = {"checkpoint": {"every_minutes": None, "every_local_steps": 2**62, "at_end": False}}


@dataclass
class Traced:
    """The records of a run, and by serial number where parameters were made and what they were (None: hollow)."""

    lines: list[str] = field(default_factory=list)
    made: dict[int, tuple[str, Optional[int]]] = field(default_factory=dict)
    events: int = 0
    committed: int = 0  # local steps

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.lines.append(update.as_json())

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self.lines.append(lost.as_json())

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self.lines.append(transfer.as_json())

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self.lines.append(commit.as_json())

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self.lines.append(evaluation.as_json())


def problem(
    sections: Section,
    plugins: Sequence[str] = (),
    cuts: int = 3,
    seed: int = 0,
    policy: Optional[Callable[[], Any]] = None,
) -> Optional[str]:
    """Return how a run resumed from one of `cuts` moments, or extended to twice its budget, differs, and the line it
    comes from; None: it does not.

    `policy()`, if given, makes the policy of each run, instead of what the configuration says.
    """
    whole = trace(merge(sections, UNWRITTEN), plugins, policy)[0]
    events = random.Random(seed).sample(range(whole.events), min(cuts, whole.events))
    run, checkpoints = trace(merge(sections, CHECKPOINTED), plugins, policy, at=events)
    if run.lines != whole.lines:
        return f"a run with checkpoints is another one: {first_difference(whole.lines, run.lines)}"
    half = merge(sections, {"budget": {"local_steps": max(1, whole.committed // 2)}})
    checkpoints += trace(merge(half, CHECKPOINTED), plugins, policy, at_end=True)[1]
    for checkpoint in checkpoints:
        where = f"resumed after event {checkpoint.events} of {whole.events}"
        if checkpoint is checkpoints[-1]:
            where = f"extended from half its budget, {where}"
        resumed = Traced()
        try:
            trace(merge(sections, CHECKPOINTED), plugins, policy, checkpoint, into=resumed)
        except Exception as error:
            parted = _first_parting(run, resumed)
            return f"{where}: {error}" + (f" The first difference: {parted}" if parted else "")
        parted = _first_parting(run, resumed) or first_difference(run.lines, resumed.lines)
        if parted is not None:
            return f"{where}: {parted}"
    return None


def trace(
    sections: Section,
    plugins: Sequence[str] = (),
    policy: Optional[Callable[[], Any]] = None,
    earlier: Optional[Checkpoint] = None,
    at: Collection[int] = (),
    into: Optional[Traced] = None,
    at_end: bool = False,
) -> tuple[Traced, list[Checkpoint]]:
    """A run, from `earlier` on if that is given, and its checkpoints, as read again: before the events `at`, and
    `at_end`, when its budget is first found spent."""
    config, found = resolved(sections, plugins)
    if policy is not None:
        config.policy = policy()
    traced = into or Traced()
    checkpoints: list[Checkpoint] = []
    with tempfile.TemporaryDirectory() as folder, _noting(traced):
        run = assemble(config, found, earlier)
        found.manager.register(traced)
        checkpointer, clock = run.checkpointer, run.simulation.clock

        def between() -> None:
            assert checkpointer is not None, "asked for"
            checkpointer.between()
            if clock.happened in at:
                keep()

        def asked(over: bool) -> None:
            assert checkpointer is not None, "asked for"
            checkpointer.asked(over)
            if over and not checkpoints:
                keep()

        def keep() -> None:
            assert checkpointer is not None, "asked for"
            checkpoints.append(load_checkpoint(checkpointer.checkpoint().save(Path(folder), keep=1)))

        if at_end:
            run.simulation.limits.asked = asked
        with closing(run):
            try:
                run.train(None if checkpointer is None else between)
            finally:
                traced.events = clock.happened
                traced.committed = run.simulation.ledger.committed
    return traced, checkpoints


@contextmanager
def _noting(traced: Traced) -> Iterator[None]:
    """Note all parameters that become part of the run."""
    original = Params.__init__

    def noted(self: Params, layout: Layout, flat: torch.Tensor | None) -> None:
        original(self, layout, flat)
        if self.serial >= 0:
            traced.made[self.serial] = _maker(), None if flat is None else crc32(content(flat))

    with mock.patch.object(Params, "__init__", noted):
        yield


def _maker() -> str:
    """`file:line` of the innermost frame of a policy or plugin; "" if there is none."""
    frame: Optional[FrameType] = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != __file__:
        if not ours(Path(frame.f_code.co_filename)):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _first_parting(run: Traced, resumed: Traced) -> Optional[str]:
    """The first parameters that a resumed run made elsewhere, or with another content."""
    for serial, (place, value) in resumed.made.items():
        there, before = run.made.get(serial, ("nowhere", None))
        if place != there:
            return f"parameters {serial} were made at {place or 'no line of a plugin'}, in the run itself at {there}"
        if value is not None and value != before:
            return f"parameters {serial}, made at {place or 'no line of a plugin'}, are not what they were in the run"
    return None
