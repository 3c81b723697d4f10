"""The runs that are asked for: folders of runs, of sweeps, of anything with runs below, and patterns of these."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from halos.config.paths import expanded
from halos.errors import UserError, from_here, shown
from halos.observers.jsonl import EVALUATIONS
from halos.reading.run import RunRecords, read

SWEEP = "sweep.json"  # which folders are cells of a sweep, and how they are labelled
SECTIONS = ("cluster", "policy", "data", "executor", "observers")  # of a configuration that are looked into


def given(names: Sequence[str]) -> tuple[list[RunRecords], list[str]]:
    """The runs that are named, each once, in order; and a line on each that is named and cannot be read, or not begun.

    A name is a run's folder; a folder with a sweep.json, whose cells are taken; any other folder, all runs below which
    are; or a pattern (`runs/slow-*`) of these. Raises UserError for a name of nothing, and if there is no run at all.
    """
    found: dict[str, RunRecords] = {}
    remarks: list[str] = []
    for name in names:
        folders, waiting = _folders(name)
        remarks += waiting
        for folder in folders:
            try:
                found.setdefault(os.path.realpath(folder), _read_whole(folder))
            except UserError as error:
                remarks.append(f"{error}; left out")
    if not found:
        raise UserError(remarks[0].removesuffix("; left out"))
    return list(found.values()), remarks


def _read_whole(folder: Path) -> RunRecords:
    """A run all of whose records can be read; UserError says which cannot, or that it is no run's configuration."""
    run = read(folder)
    for name in SECTIONS:
        if not isinstance(run.config.get(name), dict):
            raise UserError(f"{folder / 'config.yaml'} is not of a run: it has no section {name!r}")
    for records in (run.evaluations, run.updates, run.transfers, run.commits):
        assert records.names, "they are read when they are asked for"
    return run


def _folders(name: str) -> tuple[list[Path], list[str]]:
    """The folders of runs that a name stands for, and what of it has not begun."""
    place, waiting = expanded(name), list[str]()
    paths = [place] if os.path.lexists(place) else sorted(glob.glob(place, recursive=True), key=_natural)
    folders = []
    for path in map(Path, paths):
        if (path / SWEEP).is_file():
            cells = _cells(path / SWEEP)
            begun = [path / cell for cell in cells if is_run(path / cell)]
            folders += begun
            if len(begun) < len(cells):
                waiting.append(f"{from_here(path)}: {len(cells) - len(begun)} of {len(cells)} cells have not begun")
        elif (path / "config.yaml").is_file():
            folders.append(path)
        elif path.is_dir():
            folders += _below(path)
    if not paths:
        hint = Path("runs") / name
        near = f" (did you mean {hint}?)" if is_run(hint) else ""
        raise UserError(
            f"no run matches {name!r}" if glob.has_magic(place) else f"{name or shown(name)} does not exist{near}"
        )
    return folders, waiting if folders or waiting else [f"there is no run in {name}"]


def _below(folder: Path) -> Iterator[Path]:
    """The folders of runs below one, in the order in which people count; what is hidden is not looked at."""
    inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    for path in sorted(inside, key=lambda path: _natural(path.name)):
        if is_run(path):
            yield path
        else:
            yield from _below(path)


def is_run(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    return (folder / "config.yaml").is_file() and (
        (folder / EVALUATIONS).is_file() or (folder / "summary.json").is_file()
    )


def _cells(path: Path) -> list[str]:
    try:
        return list(dict[str, Any](json.loads(path.read_text(encoding="utf-8"))["cells"]))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no list of a sweep's cells") from None


def _natural(text: str) -> list[tuple[int, int, str]]:
    """For sorting: `run-2` before `run-10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
