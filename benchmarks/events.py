"""How fast the virtual world turns: events of the bare clock, and jobs of a timing run with all records."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from halos.config.config import load_config
from halos.run.lifecycle import run
from halos.sim.clock import Clock


def bare_clock(processes: int, events: int) -> float:
    """Timed events per second of processes that only sleep."""
    clock = Clock()

    async def sleeper(index: int) -> None:
        for _ in range(events // processes):
            await clock.timeout(1.0 + index * 1e-3)

    for index in range(processes):
        clock.spawn(sleeper(index))
    began = time.perf_counter()
    clock.run()
    return clock.happened / (time.perf_counter() - began)


def asynchronous(workers: int, regions: int, jobs: int, network: dict[str, Any]) -> dict[str, Any]:
    """The sections of a timing run of so many asynchronous jobs, by workers of unequal speed."""
    per_region = [0.5 + 0.5 * index / workers for index in range(workers // regions)]
    return {
        "cluster": {"regions": [{"workers": per_region}] * regions, "step_time_ms": 100.0},
        "network": network,
        "model": {"name": "sized", "parameters": 1_000_000},
        "data": {"name": "synthetic"},
        "steps": {"name": "fixed", "base": 8},
        "policy": {"name": "async_local_sgd"},
        "budget": {"local_steps": 8 * jobs},
        "executor": {"name": "timing"},
    }


def timing_run(workers: int, jobs: int, trace: bool) -> float:
    """Jobs per second, wall time of everything included, of asynchronous training with all records on a disk."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            json.dumps(
                asynchronous(workers, 4, jobs, {"bandwidth_gbps": 1.0})
                | {"observers": {"progress": False, "tensorboard": False, "trace": trace}, "out": folder + "/run"}
            )
        )
        loaded = load_config(str(config))
        began = time.perf_counter()
        summary, _ = run(*loaded)
        seconds = time.perf_counter() - began
        assert summary["updates"] == jobs, "every job is recorded"
        assert len((Path(folder) / "run/transfers.jsonl").read_text().splitlines()) == 2 * jobs
    return jobs / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    timing_run(16, 100, False)  # what is loaded when first used is not what is measured
    for _ in range(options.repeats):  # interleaved, so that a slow moment hits all alike
        for processes in (16, 1024):
            rates.setdefault(f"bare clock, {processes} processes (events/s)", []).append(bare_clock(processes, 400_000))
        for workers in (16, 1024):
            for trace in (False, True):
                name = f"timing run, {workers} workers, all records{' and trace' if trace else ''} (jobs/s)"
                rates.setdefault(name, []).append(timing_run(workers, 30_000, trace))
    result: dict[str, Any] = {
        name: {"median": median(several), "min": min(several), "max": max(several)} for name, several in rates.items()
    }
    for name, numbers in result.items():
        print(f"{name:60s} median {numbers['median']:12,.0f}   from {numbers['min']:,.0f} to {numbers['max']:,.0f}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
