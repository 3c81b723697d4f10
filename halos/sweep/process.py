"""A cell in a process of its own: what `python -m halos.run` does, forked where everything is imported already."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, Optional

from halos.command import FAILED
from halos.config.config import Config
from halos.config.sections import to_sections
from halos.config.topics import flow
from halos.errors import UserError, in_a_line
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.plugins.registry import Plugins
from halos.resume.checkpoint import Checkpoint
from halos.run import folder as folders
from halos.run.cli import ended, terminate
from halos.run.lifecycle import run
from halos.run.resuming import FREE, load_run
from halos.sweep.folder import Place
from halos.values.records import GLOBAL, Commit, Evaluation, Update

logger = logging.getLogger(__name__)


def work(
    place: Place, share: Callable[[float], None], report: Connection, alive: Connection, held: Connection
) -> NoReturn:
    """Run the cell in `place`, and end the process; what it says goes into its log.

    `share` is told how much of its budget is spent, `report` at its end the last line that it said and the modules that
    it had to import. `held` is the end of `alive` that the process which began this one keeps: however that one ends,
    this one then ends at once.
    """
    held.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is said to all; who began us tells us by SIGTERM
    signal.signal(signal.SIGTERM, terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    log = Log(place.log)
    sys.stdout = sys.stderr = log
    faulthandler.enable(2)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("halos").setLevel(logging.INFO)
    before = set(sys.modules)
    code = attempt(place, share)
    report.send((log.last, [name for name in sys.modules if name not in before]))
    sys.exit(code)


def attempt(place: Place, share: Callable[[float], None]) -> int:
    """Run it, from its checkpoint if it has one; the exit code."""
    cell = place.cell
    config, plugins, earlier = cell.config, cell.plugins, None
    try:
        if place.state == "interrupted":
            config, plugins, earlier = _resumed(place)
        if earlier is None and place.state != "new" and not folders.holds_run(cell.folder):
            folders.clear(cell.folder)  # it was killed before it had begun
        plugins.manager.register(Share(share))
        run(config, plugins, earlier, overwrite=earlier is None and place.state != "new")
    except BaseException as error:
        code = ended(error, plugins.name_of(type(config.policy)))
        if code is None:
            traceback.print_exception(error)
            print(f"failed: {type(error).__name__}: {in_a_line(error)}", file=sys.stderr)
            return FAILED
        return code
    return 0


def _resumed(place: Place) -> tuple[Config, Plugins, Optional[Checkpoint]]:
    """The run's configuration, with what may change as it is now, and its checkpoint; none if none is intact."""
    cell = place.cell
    sections = to_sections(cell.config, cell.plugins)
    changes = []
    for key in FREE:
        value: Any = sections
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            changes.append(f"{key}={flow(value)}")
    try:
        return load_run(cell.folder, changes, without=cell.without)
    except UserError as error:
        logger.warning("%s; it begins again", error)
        return cell.config, cell.plugins, None


class Log(io.TextIOBase):
    """All that this process says, also what libraries do: in a file, as long as the disk has room."""

    def __init__(self, path: Path) -> None:
        self.last = ""  # the last line that is not empty
        with suppress(OSError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(file, 1)
            os.dup2(file, 2)

    def write(self, text: str) -> int:
        self.last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), self.last)
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)


class Share:
    """Tells how much of its budget a run has spent, 0 to 1."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._trained = 0

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._trained += update.steps

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.server == GLOBAL:
            self._now(commit.local_steps, commit.time)

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self._now(evaluation.local_steps, evaluation.time)

    def _now(self, steps: int, time: float) -> None:
        self._tell(self._experiment.share(steps, self._trained, time))


def _end_with(alive: Connection) -> None:
    """Kill this process once nobody holds the other end: an orphan would keep its folder from the next sweep."""
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    os.kill(os.getpid(), signal.SIGKILL)
