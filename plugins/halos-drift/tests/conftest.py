"""A run with `drift` turned on, in a folder of its own, and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from halos.testing import main

Written = Callable[..., list[dict[str, Any]]]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The records in drift.jsonl."""
    return [json.loads(line) for line in (folder / "drift.jsonl").read_text(encoding="utf-8").splitlines()]


def begin(folder: Path, sections: dict[str, Any], changes: Sequence[str] = (), plugins: Sequence[str] = ()) -> int:
    """Run a configuration into `folder`; the exit code."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(sections).replace("Infinity", ".inf"), encoding="utf-8")  # JSON is YAML
    more = [each for plugin in plugins for each in ("--plugin", plugin)]
    return main([str(config), f"out={folder}", "observers.progress=false", *changes, *more])


@pytest.fixture
def drifting(tmp_path: Path) -> Written:
    """`drifting(sections, plugins=[…], probed=…)`: the lines of a run with these options of drift."""

    def run(sections: dict[str, Any], plugins: Sequence[str] = (), **options: Any) -> list[dict[str, Any]]:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        quiet = {"tensorboard": False, "trace": False, "records": "none", "extra": {"drift": options}}
        assert begin(folder, sections | {"observers": quiet, "checkpoint": {"at_end": False}}, (), plugins) == 0
        return lines(folder)

    return run
