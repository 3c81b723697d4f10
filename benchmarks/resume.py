"""Exact resume: what checkpoints cost (`cost`), and runs killed for real, again and again (`soak`).

`soak` kills `python -m halos.run` with SIGKILL at seeded moments and resumes it until it has ended, for every given
configuration, and compares records, parameters and TensorBoard scalars with those of a run left alone. It exits
with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Optional
from unittest import mock

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from halos.config.config import load_config
from halos.resume.checkpointer import Checkpointer
from halos.run.lifecycle import run

SMALL = sorted(str(path) for path in Path("configs/small").glob("[!c]*.yaml"))  # but common.yaml
QUIET = ["observers.progress=false"]


def run_seconds(config: str, steps: int, *changes: str) -> float:
    """Processor time of a run of so many local steps, everything included; it computes all the time, in one thread."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_config(config, [f"budget.local_steps={steps}", f"out={folder}/run", *QUIET, *changes])
        began = time.process_time()
        run(*loaded)
        return time.process_time() - began


def checkpoint_costs(config: str, steps: int, repeats: int) -> tuple[list[float], float]:
    """Seconds that a checkpoint takes, several times in one run when all workers have trained, and its megabytes."""
    seconds: list[float] = []
    original, folder = Checkpointer.between, Path(tempfile.mkdtemp())

    def between(checkpointing: Checkpointer) -> None:
        original(checkpointing)
        if checkpointing._simulation.ledger.trained >= steps / 2 and len(seconds) < repeats:
            began = time.perf_counter()
            checkpointing.checkpoint().save(folder / "checkpoints", keep=2)
            seconds.append(time.perf_counter() - began)

    try:
        with mock.patch.object(Checkpointer, "between", between):
            run_seconds(config, steps, "checkpoint.every_minutes=1000")
        return seconds, max(path.stat().st_size for path in (folder / "checkpoints").iterdir()) / 1e6
    finally:
        shutil.rmtree(folder)


def cost(options: argparse.Namespace) -> dict[str, Any]:
    ratios = []
    for _ in range(options.repeats):  # interleaved, so that a slow moment hits both alike
        without = run_seconds(options.config, options.steps)
        ratios.append(run_seconds(options.config, options.steps, "checkpoint.every_minutes=1000") / without)
    writing, megabytes = checkpoint_costs(options.config, options.steps, 9)
    return {
        "ready to write, none written (processor time, ratio)": [min(ratios), median(ratios), max(ratios)],
        "one checkpoint (s)": [min(writing), median(writing), max(writing)],
        "one checkpoint (MB)": megabytes,
        "one a minute (% of wall time)": 100 * median(writing) / 60,
    }


def left(folder: Path) -> dict[str, Any]:
    """What must be equal, bit for bit."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    found |= {name: tensor.numpy().tobytes() for name, tensor in torch.load(folder / "model.pt").items()}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        found[tag] = [(each.wall_time, each.step, repr(each.value)) for each in events.Scalars(tag)]
    return found


def command(arguments: list[str], kill_after: Optional[float] = None) -> bool:
    """`python -m halos.run`; whether it ended before it was killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "halos.run", *arguments], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {said.decode()}")
    return True


def soak_one(config: str, steps: int, kills: int, seed: int, folder: Path) -> tuple[int, int, list[str]]:
    """How often a run was killed, how often before its first checkpoint, and what of it was different in the end."""
    drawn, changes = random.Random(f"{seed} {config}"), [f"budget.local_steps={steps}", *QUIET]
    began = time.monotonic()
    command([config, *changes, f"out={folder / 'whole'}"])
    lasts = time.monotonic() - began
    killed = early = 0
    cut = folder / "cut"
    arguments: list[str] = []
    while True:
        resumed = any((cut / "checkpoints").glob("events-*"))
        if resumed:
            arguments = ["--resume", str(cut)]
        else:
            early += killed > 0
            shutil.rmtree(cut, ignore_errors=True)
            arguments = [config, *changes, f"out={cut}", f"checkpoint.every_local_steps={max(1, steps // 24)}"]
        if command(arguments, drawn.uniform(0.0, lasts) if killed < kills else None):
            break
        killed += 1
    expected, found = left(folder / "whole"), left(cut)
    return killed, early, sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))


def soak(options: argparse.Namespace) -> dict[str, Any]:
    results = {}
    for config in options.configs or SMALL:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                killed, early, different = soak_one(config, options.steps, options.kills, seed, Path(folder))
            results[f"{config}, seed {seed}"] = {"killed": killed, "before a checkpoint": early, "different": different}
            print(f"{config}, seed {seed}: killed {killed} times, {early} of them before a checkpoint: "
                  f"{', '.join(different) or 'nothing'} differs", flush=True)  # fmt: skip
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cost", "soak"))
    parser.add_argument("--config", default="configs/small/halos.yaml", help="for cost")
    parser.add_argument("--configs", nargs="*", help="for soak; without, all in configs/small")
    parser.add_argument("--steps", type=int, default=768, help="local steps of a run")
    parser.add_argument("--repeats", type=int, default=5, help="for cost")
    parser.add_argument("--kills", type=int, default=5, help="for soak: of one run")
    parser.add_argument("--seeds", type=int, default=3, help="for soak: runs of each configuration")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = cost(options) if options.what == "cost" else soak(options)
    if options.what == "cost":
        for name, value in results.items():
            print(f"{name:54s}", value if isinstance(value, list) else f"{value:.3g}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(options.what == "soak" and any(each["different"] for each in results.values()))


if __name__ == "__main__":
    sys.exit(main())
