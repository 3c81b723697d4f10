"""The run folder: made for one run, never shared with an older one, which it may replace."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from halos.config.config import Config
from halos.config.layers import read
from halos.config.references import escaped
from halos.config.yaml_text import to_yaml
from halos.errors import ConfigError, UserError, shown
from halos.observers.experiment import Experiment
from halos.plugins.optional import call
from halos.training import Executor
from halos.values.params import Params

IN_USE = "is in use: another run is writing there"
# What a run writes beside its checkpoints.
WRITTEN = ("config.yaml", "summary.json", "model.pt", "results.pt", "trace.json", "*.jsonl", "events.out.tfevents*")
LATER = {"labels"}  # sections that runs of before did not write
ASIDE = ".replaced"  # where a run that is being replaced is kept until the new one has begun

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl


def refuse_used(folder: Path) -> None:
    """Raise ConfigError if `folder` holds anything, or cannot be a folder."""
    try:
        used = any(folder.iterdir())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from None
    if used:
        way_out = "or replace it with --overwrite" if holds_run(folder) else "or delete it"
        raise ConfigError(
            "out", f"{_quoted(folder)} exists already and is not empty; choose another name=… or out=…, {way_out}"
        )


def holds_run(folder: Path) -> bool:
    """Whether `folder` is the folder of a run: its config.yaml has all sections and says that the run is there."""
    sections = {field.name for field in dataclasses.fields(Config) if field.init} - LATER
    for place in (folder, folder / ASIDE):
        with suppress(UserError):
            config = read(place / "config.yaml")
            named = config.get("out") or config.get("name")
            if sections <= config.keys() and isinstance(named, str):
                return Path(named).resolve().name == escaped(folder.resolve().name)
    return False


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """Put away what a run wrote in `folder`: for good once the body is through, back if it raises.

    What no run writes stays where it is. `folder` must be locked. Raises ConfigError if something cannot be moved.
    """
    aside = folder / ASIDE
    try:
        if os.path.lexists(aside):  # left by a run that was killed as it began: what it replaced was to go
            shutil.rmtree(aside)
        aside.mkdir()
        for entry in _of_a_run(folder):
            entry.rename(aside / entry.name)
    except BaseException as error:
        _back(aside)
        if isinstance(error, OSError):
            raise _unusable(folder, error) from None
        raise
    try:
        yield
    except BaseException:
        for entry in _of_a_run(folder):
            _remove(entry)
        _back(aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _of_a_run(folder: Path) -> list[Path]:
    """What runs write in their folder."""
    return [
        entry
        for entry in folder.iterdir()
        if any(fnmatch.fnmatchcase(entry.name, each) for each in (*WRITTEN, "checkpoints"))
    ]


def _back(aside: Path) -> None:
    for entry in aside.iterdir() if aside.is_dir() else ():
        entry.rename(aside.parent / entry.name)
    with suppress(OSError):
        aside.rmdir()


def refuse_unwritable(folder: Path) -> None:
    """Raise ConfigError unless a run can go on in `folder`: what it wrote must be files that it may write again."""
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _unusable(folder, PermissionError(0, "it cannot be written to"))
        for entry in folder.iterdir():
            if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in WRITTEN):
                if not os.path.isfile(entry):
                    raise _unusable(folder, OSError(0, f"{entry.name} is no file"))
                if not os.access(entry, os.W_OK):
                    raise _unusable(folder, PermissionError(0, f"{entry.name} cannot be written to"))
    except OSError as error:
        raise _unusable(folder, error) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` for the body, however this process ends. Raises ConfigError if another run has it."""
    if fcntl is None:
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("out", f"{_quoted(folder)} {IN_USE}") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def made(folder: Path, stack: ExitStack) -> Iterator[None]:
    """Create and lock `folder` until `stack` closes; undo everything if the body raises. May raise ConfigError."""
    new = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            stack.enter_context(locked(folder))
        except ConfigError as error:
            if error.problem.endswith(IN_USE):
                new.clear()  # another run was faster, and is about to write there
            raise
        refuse_used(folder)  # again: another run may have been faster
        try:
            yield
        except BaseException:
            _empty(folder)
            raise
    except BaseException:
        for path in new:
            with suppress(OSError):  # not there, or somebody else uses it by now
                path.rmdir()
        raise


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _unusable(folder: Path, error: Exception) -> ConfigError:
    why = getattr(error, "strerror", None) or str(error)
    return ConfigError("out", f"{_quoted(folder)} cannot be the run's folder: {why}")


def _quoted(folder: Path) -> str:
    return shown(str(folder)).strip("'\"")


def write_config(experiment: Experiment) -> None:
    path = experiment.folder / "config.yaml"
    try:
        path.write_text(to_yaml(experiment.config), encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError("out", f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def save_model(params: Params, executor: Executor, folder: Path) -> None:
    """Write `params` as a state dict, with what else belongs to the module if the executor can say it."""
    if not params.hollow:
        state = call(executor, "whole", params)
        if state is None:
            state = {name: tensor.detach().cpu().clone() for name, tensor in params.tensors().items()}
        path, part = folder / "model.pt", folder / "model.pt.part"
        try:
            torch.save(state, part)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise UserError(f"{path} cannot be written: {error}") from None
