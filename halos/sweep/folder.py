"""A sweep's folder: one sweep at a time, the list of its cells, and what has become of them before."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional

from halos.compare.given import SWEEP
from halos.config.references import escaped
from halos.config.yaml_text import to_yaml
from halos.errors import UserError, from_here
from halos.observers.files import replacing
from halos.run.folder import holds_run
from halos.sweep.cells import Cell
from halos.values.records import DIVERGED

LOGS, TIMING = "logs", "timing"
PATIENCE = 10.0  # seconds for the processes of a sweep that was killed to end
LABELS = re.compile(r"^labels:.*\n(?:[ ].*\n)*", re.M)  # in a resolved configuration
State = Literal["new", "finished", "diverged", "interrupted", "broken off"]

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl


@dataclass(frozen=True)
class Place:
    """Where a cell runs, or ran, and what it had come to."""

    cell: Cell
    state: State

    @property
    def over(self) -> bool:
        """Whether there is a result: nothing is left to run."""
        return self.state in ("finished", "diverged")

    @property
    def log(self) -> Path:
        """What the run said, beside it."""
        return self.cell.folder.parent / LOGS / f"{self.cell.folder.name}.log"


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for one sweep at a time. Raises UserError.

    It is locked as long as any process of the sweep lives: so the next one waits a little for those of one that was
    killed.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--out: {folder} is no folder")
    if holds_run(folder):
        raise UserError(f"--out: {folder} is the folder of a run; a sweep needs one of its own")
    with ExitStack() as stack:
        try:
            (folder / LOGS).mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(0, "it cannot be written to")
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
        except OSError as error:
            raise UserError(f"--out: {folder} cannot be the folder of a sweep: {error.strerror}") from None
        _lock(handle, folder)
        yield


def _lock(handle: int, folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while fcntl is not None:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise UserError(f"--out: {folder} is in use: another sweep is writing there") from None
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return None


def places(cells: Sequence[Cell], folder: Path) -> list[Place]:
    """What the cells had come to in `folder`, where a run is known by the digest in its folder's name.

    One that is there under other labels stays where it is.
    """
    there = {path.name.rpartition("-")[2]: path for path in folder.iterdir()} if folder.is_dir() else {}
    found = []
    for cell in cells:
        path = there.get(cell.digest, cell.folder)
        cell = replace(cell, config=replace(cell.config, out=str(folder / path.name)))
        found.append(Place(cell, state(path)))
    return found


def state(folder: Path) -> State:
    """What has become of the run in `folder`."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return "new"
    finished = (summary(folder) or {}).get("finished")
    if finished is True:
        return "finished"
    if isinstance(finished, str) and finished.startswith(DIVERGED):
        return "diverged"
    return "interrupted" if any(folder.glob("checkpoints/events-*.pt")) else "broken off"


def summary(folder: Path) -> Optional[dict[str, Any]]:
    """A run's summary; None if there is none that can be read."""
    try:
        read = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def list_cells(folder: Path, axes: Sequence[str], places: Sequence[Place]) -> None:
    """Write which runs are cells of the sweep, and their labels; also into those that are there under other ones."""
    cells = {place.cell.folder.name: place.cell.labels for place in places}
    with replacing(folder / SWEEP) as temporary:
        temporary.write_text(json.dumps({"axes": list(axes), "cells": cells}, indent=1) + "\n", encoding="utf-8")
    for place in places:
        if place.over:
            _label(place.cell.folder / "config.yaml", place.cell)


def _label(path: Path, cell: Cell) -> None:
    labels = {name: escaped(label) if isinstance(label, str) else label for name, label in cell.config.labels.items()}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise UserError(f"{path} {problem}; without {from_here(path.parent)} the cell is run again") from None
    wanted = LABELS.sub(lambda _: to_yaml({"labels": labels}), text)
    if wanted != text:
        with replacing(path) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
