"""What a run leaves, and the small files that tests of runs write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from halos.testing import tiny

ROOT = Path(__file__).parents[2]


RECORDS = ("updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl")


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n"), "whole lines only"
    return [json.loads(line) for line in text.splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    """What `summary.json` says; wherever steps went, they add up, and to what the updates say."""
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    steps = found["steps"]
    assert steps["trained"] == steps["committed"] + steps["dropped"] + steps["in_flight"]
    if (folder / "updates.jsonl").exists():
        assert steps["trained"] == sum(update["steps"] for update in lines(folder / "updates.jsonl"))
    assert found["local_steps"] == steps["committed"]
    return found


def plugin(body: str, more: str = "") -> str:
    """A policy `mine` with this body, as a single file."""
    text = "\n".join("        " + line for line in body.splitlines())
    return (
        "from dataclasses import dataclass\nfrom halos import all_of\nfrom halos.sim.clock import Event\n"
        "from halos.hooks import hookimpl\n\n"
        f"@dataclass\nclass Mine:\n    async def run(self, sim):\n{text}\n{more}\n"
        "@hookimpl\ndef register_sync_policies(register): register('mine', Mine)\n"
    )


def python(*arguments: str, folder: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


WATCH = """
from halos.errors import UserError
from halos.hooks import hookimpl

@hookimpl
def on_{event}({record}):
    raise {error}
"""


def written(folder: Path, **changes: Any) -> str:
    (folder / "c.yaml").write_text(json.dumps(tiny(**changes)))  # JSON is YAML, with .inf as Infinity
    return str(folder / "c.yaml")
