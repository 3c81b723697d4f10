"""What flows cost: asynchronous jobs of a timing run over links that are shared, against a matrix, in turns.

python -m benchmarks.flows [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.events import asynchronous
from halos.testing import record

MATRIX = {"name": "matrix", "bandwidth_gbps": 1.0}
SHARED = {"name": "shared_links", "up_gbps": 10.0, "down_gbps": 10.0, "backbone_gbps": 1.0, "inside_gbps": 10.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "matrix": MATRIX,
    "shared links": SHARED,
    "shared links, one for each worker as well": SHARED | {"worker_up_gbps": 1.0, "worker_down_gbps": 1.0},
}
REGIONS = 16


def timing_run(network: dict[str, Any], workers: int, jobs: int) -> tuple[float, float]:
    """Jobs and events of the clock per second of processor time, nothing being written."""
    began = time.process_time()
    recording = record(asynchronous(workers, REGIONS, jobs, network))
    seconds = time.process_time() - began
    assert len(recording.updates) == jobs, "every job is recorded"
    return jobs / seconds, recording.simulation.clock.happened / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    timing_run(MATRIX, REGIONS, 100)  # what is loaded when first used is not what is measured
    for _ in range(options.repeats):  # interleaved, so that a slow moment hits all alike
        for workers in (16, 1024):
            for name, network in NETWORKS.items():
                jobs, events = timing_run(network, workers, options.jobs)
                rates.setdefault(f"{name}, {workers} workers (jobs/s)", []).append(jobs)
                rates.setdefault(f"{name}, {workers} workers (events/s)", []).append(events)
    result = {name: {"median": median(many), "min": min(many), "max": max(many)} for name, many in rates.items()}
    for name, numbers in result.items():
        print(f"{name:70s} {numbers['median']:12,.0f}   from {numbers['min']:,.0f} to {numbers['max']:,.0f}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
