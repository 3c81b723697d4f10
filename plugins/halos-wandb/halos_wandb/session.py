"""A run of Weights & Biases: the only part that calls its library, which is loaded when a run begins."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from halos import UserError
from halos_wandb.rows import AXES, HOURS, LOSSES, Row

logger = logging.getLogger("halos.wandb")

KEY = "observers.extra.wandb"
ONLINE = ("online", "run")  # as WANDB_MODE may have it
KILLED, FAILED = 255, 1  # exit codes, as the library's own for Ctrl-C and an error


class Session:
    """An open run. What goes wrong once it is open is a warning, and the last that is logged: training goes on."""

    def __init__(self, folder: Path, id: Optional[str], finish_seconds: float, **options: Any) -> None:
        """Open the run `id`, or a new one; `options` are those of `wandb.init`. Raises UserError if it cannot be."""
        library = _library()
        self._folder, self._working = folder, True
        settings = library.Settings(
            silent=True,  # what matters is said here
            console="off",  # what is printed is not recorded
            x_disable_stats=True,  # of the machine, whose clock is another
            disable_code=True,
            finish_timeout=finish_seconds,
        )
        try:
            online = (options["mode"] or library.setup().settings.mode) in ONLINE
            if online and not _logged_in(library):
                raise UserError(f"{KEY}: not logged in; wandb login, or {KEY}.mode=offline, to upload it later")
            self._run = library.init(
                dir=os.path.abspath(folder),
                id=id,
                resume=None if id is None else "allow",
                reinit="create_new",  # beside one that a notebook may have
                settings=settings,
                **options,
            )
        except UserError:
            raise
        except Exception as error:  # whatever the library, or its process, may raise
            raise UserError(f"{KEY}: {_line(error)}; or {KEY}.mode=offline, to upload it later") from error
        self.id: str = self._run.id
        self.first: int = self._run.starting_step  # number of the first row that it does not have
        for axis in AXES:
            self._run.define_metric(axis, hidden=True)
        self._run.define_metric("*", step_metric=HOURS)
        for group, axis in LOSSES.items():
            self._run.define_metric(f"{group}/*", step_metric=axis)
        self._offline: bool = self._run.offline
        if online:
            logger.info("Weights & Biases: %s", self._run.url)

    def log(self, row: Row) -> None:
        """Log a row, unless the run has it already."""
        if row.number >= self.first and self._working:
            try:
                self._run.log(row.values, step=row.number)
            except Exception as error:
                self._give_up(error)

    def close(self, summary: Mapping[str, Any], finished: Any) -> None:
        """End the run, with numbers that tables show; `finished` is true, "interrupted" or why it failed."""
        if not self._working:
            return
        code = 0 if finished is True else KILLED if finished == "interrupted" else FAILED
        try:
            self._run.summary.update(known(summary))
            self._run.finish(exit_code=code)
            if self._offline:
                logger.info("Weights & Biases: wandb sync %s uploads it", self._kept())
        except Exception as error:
            self._give_up(error)

    def drop_earlier(self, resumed: bool) -> None:
        """Remove from the folder what this run takes the place of.

        What was kept of it offline, if it was `resumed`: all of it has come again; else whatever a run that was
        replaced has left.
        """
        for earlier in self._folder.glob(f"wandb/offline-run-*-{self.id}" if resumed else "wandb/*run-*"):
            if earlier != self._kept():
                shutil.rmtree(earlier, ignore_errors=True)

    def _kept(self) -> Path:
        return self._folder / "wandb" / Path(self._run.settings.sync_dir).name

    def _give_up(self, error: Exception) -> None:
        self._working = False
        logger.warning("Weights & Biases: %s; no more is logged there, and the run goes on", _line(error))


def _logged_in(library: Any) -> bool:
    """Whether it knows who logs, without asking; nor does it talk about it."""
    ours = library.setup().settings
    before, ours.silent = ours.silent, True
    try:
        return bool(library.login(prompt=False, verify=False))
    finally:
        ours.silent = before


def _library() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"{KEY}: {error}; pip install 'halos-wandb[wandb]' (or wandb), or set it to null") from error
    if not hasattr(wandb, "init"):  # a folder of that name, in the working directory
        raise UserError(
            f"{KEY}: wandb is not installed; pip install 'halos-wandb[wandb]' (or wandb), or set it to null"
        )
    return wandb


def known(value: Any) -> Any:
    """Return `value` with all that is plain in it and known: no null, no number that is none; texts for infinities."""
    if isinstance(value, Mapping):
        pairs = ((str(key), known(inner)) for key, inner in value.items())
        return {key: inner for key, inner in pairs if inner is not None}
    if isinstance(value, (list, tuple)):
        return [known(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
