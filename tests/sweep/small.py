"""A grid that takes moments, for tests of the sweep."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from halos.config.layers import merge
from halos.config.yaml_text import Section, to_yaml
from halos.run.cli import terminate
from halos.sweep.cells import Cell, Cells
from halos.sweep.cli import main
from halos.sweep.grid import asked
from halos.testing import TINY

QUIET: Section = {"observers": {"progress": False, "tensorboard": False, "trace": False}}
# Records of each kind, so that what is compared bit for bit holds something.
RECORDS = ("updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl", "model.pt")


def tiny(folder: Path, **changes: object) -> str:
    """The path of a tiny configuration, written into `folder`."""
    path = folder / "tiny.yaml"
    path.write_text(to_yaml(merge(merge(TINY, QUIET), changes)), encoding="utf-8")
    return str(path)


def cells(config: str, *arguments: str, out: Path) -> list[Cell]:
    """The cells of a grid, resolved."""
    return Cells(out).made(asked([config], arguments).cells())


def begun(*arguments: str) -> BaseProcess:
    """The command in a process of its own, forked from this one, where everything is imported already."""
    process = multiprocessing.get_context("fork").Process(target=_command, args=(arguments,))
    process.start()
    return process


def swept(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What it said on stdout and stderr; it must end with `code`."""
    process = begun(*arguments)
    process.join()
    said = tuple(Path(name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert process.exitcode == code, said
    return said[0], said[1]


def _command(arguments: Sequence[str]) -> NoReturn:
    sys.stdout, sys.stderr = (open(name, "w", encoding="utf-8") for name in ("stdout", "stderr"))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main(arguments))


def recorded(folder: Path) -> dict[str, dict[str, bytes]]:
    """By run folder, the files that must not depend on how a run came about."""
    runs = {path.parent for path in folder.glob("*/config.yaml")}
    return {run.name: {name: (run / name).read_bytes() for name in RECORDS} for run in sorted(runs)}
