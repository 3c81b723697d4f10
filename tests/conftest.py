"""What tests of the command line share."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from halos.config.layers import merge
from halos.config.yaml_text import Section, to_yaml
from halos.run.cli import main
from halos.testing import TINY

QUIET: Section = {"observers": {"progress": False, "tensorboard": False, "trace": False}}


@dataclass(frozen=True)
class Answer:
    """What the command did: exit code, what it printed, and which files it left."""

    code: int
    out: str
    err: str
    made: set[str]


Command = Callable[..., Answer]
FIRST = frozenset(sys.path)


@pytest.fixture(autouse=True, scope="module")
def only_halos_itself() -> Iterator[None]:
    """Plugin packages that are installed (or were, and left metadata) are none of a test's business.

    Nothing that is installed where Python began to look is found, as to look there takes longer than most runs.
    """
    everything = importlib.metadata.distributions

    def without_plugins(**context: Any) -> list[importlib.metadata.Distribution]:
        added = [folder for folder in sys.path if folder not in FIRST]
        return list(everything(**{"path": added, **context}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "distributions", without_plugins)
        yield


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m halos.run ARGUMENTS`, in this process and an empty folder, with `files` (name → text) in it."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, files: dict[str, str] | None = None) -> Answer:
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        before = _files(tmp_path)
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:  # argparse's way of ending
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err, _files(tmp_path) - before)

    return run


@pytest.fixture
def tiny_yaml() -> Callable[..., str]:
    """`halos.testing.TINY` as a config file without observers, with some sections changed."""

    def text(**changes: object) -> str:
        return to_yaml(merge(merge(TINY, QUIET), changes))

    return text


def _files(folder: Path) -> set[str]:
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {name for name in found if "__pycache__" not in name}
