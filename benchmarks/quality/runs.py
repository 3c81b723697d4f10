"""Runs the study, each run a process of its own, and gathers what they recorded into one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.quality.study import Run
from halos.observers.files import replacing
from halos.reading.lines import batches

ROOT = Path(__file__).parents[2]
STOPPED = "stopped: "  # how a run says that it diverged: a result, too


class Results:
    """The raw results in one JSON file, a line per run, saved after every one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def has(self, run: Run) -> bool:
        """Whether there is a result of this very run, with today's settings."""
        return self.runs.get(run.name, {}).get("settings") == run.settings

    def add(self, run: Run, result: dict[str, Any]) -> None:
        """Record it, and save."""
        self.runs[run.name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in sorted(self.runs.items())]
        with replacing(self.path) as temporary:
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def execute(todo: Sequence[Run], results: Results, folder: Path, at_once: int) -> list[str]:
    """Run what has no result yet, `at_once` at a time; what failed, a line each."""
    todo = [run for run in todo if not results.has(run)]
    failures = []
    with ThreadPoolExecutor(at_once) as pool:
        begun = {pool.submit(one, run, folder): run for run in todo}
        for number, done in enumerate(as_completed(begun), 1):
            run, result = begun[done], done.result()
            if isinstance(result, str):
                failures.append(f"{run.name}: {result}")
            else:
                results.add(run, result)
            said = result if isinstance(result, str) else f"loss {result['loss'][-1]}, {result['wall_seconds']} s"
            print(f"{number}/{len(todo)} {run.name}: {said}", flush=True)
    return failures


def one(run: Run, folder: Path) -> dict[str, Any] | str:
    """The result of one run, or the last line it said if it has none. A finished run's folder is not run again."""
    out = folder / run.name.replace("/", "-") / run.settings
    if not (out / "summary.json").exists() or _summary(out)["finished"] is not True:
        attempt = out.with_name(f"{run.settings}.{os.getpid()}")
        said = _run(run, attempt)
        if not (attempt / "summary.json").exists():
            return said
        if _summary(attempt)["finished"] is not True and not said.startswith(STOPPED):
            return said
        if not out.exists():  # or another process was faster with the same run
            os.replace(attempt, out)
    return gather(run, out)


def _run(run: Run, out: Path) -> str:
    """Run it on one thread; returns the last line of what it had to complain about."""
    command = [sys.executable, "-m", "halos.run", str(run.method.config), *run.changes, f"out={out}"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def gather(run: Run, out: Path) -> dict[str, Any]:
    """What a run folder holds of interest: the evaluations of the global model, and facts of the summary."""
    summary = _summary(out)
    records = [each for several in batches(out / "evaluations.jsonl") for each in several]
    evaluations = [each for each in records if each["set"] == "validation"]
    evaluations = [each for each in evaluations if each["loss"] is not None]  # as of a model that diverged
    curve = [each for each in evaluations if each["of"] == "global"]
    others = {each["of"]: round(each["loss"], 5) for each in evaluations if each["of"] != "global"}  # the last of each
    return {
        "settings": run.settings,
        "changes": run.changes,
        "finished": summary["finished"],
        "simulated_seconds": round(summary["simulated_seconds"], 3),
        "steps": summary["steps"],
        "tokens": summary["tokens"],
        "commits": summary["commits"],
        "gigabytes": round(sum(summary["bytes"].values()) / 1e9, 1),
        "staleness": summary["staleness"]["hop"],
        "goodput": round(summary["goodput"] or 0.0, 4),
        "final_losses_of": others,
        "data": summary["data"],
        "versions": {
            Path(name).name: version for name, version in summary["versions"].items()
        },  # files without folders
        "wall_seconds": round(summary["wall_seconds"]),
        "time": [round(each["time"], 3) for each in curve],
        "trained_steps": [each["trained_steps"] for each in curve],
        "loss": [round(each["loss"], 5) for each in curve],
    }


def _summary(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary
