"""A command in this process: how it ends and what it says, within bounds of time and memory."""

from __future__ import annotations

import io
import logging
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from halos import hookimpl
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.hooks import Register
from halos.run.cli import main
from halos.testing import TINY

MANY = int(os.environ.get("HALOS_FUZZ", 0))  # examples of each property, drawn anew; otherwise few, always the same
SECONDS, MEGABYTES = 60, 300  # what a command may take: none of these is meant to be long

# Two rounds of two workers, and nobody watching.
QUIET: Section = merge(TINY, {"observers": {"progress": False, "tensorboard": False, "trace": False}})


def examples(few: int) -> Callable[[Any], Any]:
    """So many examples of a property, the same every time."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=MANY or few, derandomize=not MANY, deadline=None, suppress_health_check=slow, database=None
    )


@dataclass(frozen=True)
class Outcome:
    """Exit code, what was printed, and warnings."""

    code: int
    out: str
    err: str
    warned: tuple[str, ...]  # warnings of libraries; of a mistake, also what was logged

    @property
    def refused(self) -> bool:
        """Exit code 2, one line that says why, and nothing else."""
        one_line = self.err.startswith("error: ") and self.err.endswith("\n") and self.err.count("\n") == 1
        return self.code == 2 and one_line and not self.out and not self.warned

    @property
    def well(self) -> bool:
        """Refused; or a run that ended, or stopped with a line about it, and nothing printed besides."""
        stopped = self.code == 1 and self.err.startswith("stopped: ") and self.err.count("\n") == 1
        return self.refused or (((self.code == 0 and not self.err) or stopped) and not self.warned)


@contextmanager
def here() -> Iterator[Path]:
    """An empty working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path()
        finally:
            os.chdir(before)


class TookTooLong(BaseException):
    """Not an Exception, so that nothing takes it for one of its own."""


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Neither a hang nor a huge allocation."""

    def stop(*_: object) -> NoReturn:
        raise TookTooLong

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    other = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, other)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MiB more than before"


@contextmanager
def logged() -> Iterator[list[str]]:
    """Warnings and errors that are logged meanwhile: each would be a line on stderr."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname}: {record.getMessage()}")

    collector = Collector(logging.WARNING)
    logging.getLogger("halos").addHandler(collector)
    try:
        yield lines
    finally:
        logging.getLogger("halos").removeHandler(collector)


def ended(*arguments: str, plugins: tuple[str, ...] = ()) -> Outcome:
    """`python -m halos.run ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with bounded(), logged() as lines, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([*arguments, *(f"--plugin={name}" for name in plugins)])
            except SystemExit as stop:  # argparse's way of ending
                code = int(stop.code or 0)
    seen = tuple(str(each.message) for each in warned if each.category is not ResourceWarning)
    return Outcome(code, out.getvalue(), err.getvalue(), (*seen, *lines) if code == 2 else seen)


def contents(folder: Path) -> Mapping[str, Any]:
    """Every entry below a folder: bytes of files, where links lead, and what else there is."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.is_dir()
    return found


class Witness(nn.Module):
    """A model that notes what it is trained and evaluated on."""

    seen: list[Tensor] = []  # noqa: RUF012 - of the run under way

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(Tensor([0.0, 0.0]))

    def forward(self, batch: Tensor) -> Tensor:
        self.seen.append(batch)
        return (self.theta - 1.0).square().sum()


@dataclass(frozen=True)
class WitnessModel:
    """`model.name=witness`."""

    def shapes(self, vocab_size: int | None) -> dict[str, tuple[int, ...]]:
        return {"theta": (2,)}

    def build(self, vocab_size: int | None, seed: int) -> Witness:
        Witness.seen.clear()
        return Witness()


@hookimpl
def register_models(register: Register) -> None:
    register("witness", WitnessModel)


sys.modules["witness"] = SimpleNamespace(register_models=register_models)  # type: ignore[assignment]
