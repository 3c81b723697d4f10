"""What Ray costs on one machine: local steps per second of `executor: ray` over those of `executor: parallel`.

Each turn is a process of its own, one after another: a run with as many actors as the other has processes, and the
other. What is timed is the run from its first moment to its last, not how long Ray takes to start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_loop import trained
from benchmarks.parallel import POLICIES, SMALL, SPEEDS, Watch
from halos.config.config import load_config
from halos.run.lifecycle import run


def rate(executor: dict[str, Any], policy: str, steps: int) -> float:
    """Local steps per second of a run."""
    sections = (
        POLICIES[policy]
        | trained(SMALL)
        | {
            "cluster": {"regions": [{"workers": speeds} for speeds in SPEEDS]},
            "budget": {"local_steps": steps},
            "executor": executor,
            "observers": {"progress": False, "tensorboard": True, "trace": True},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(json.dumps(sections | {"out": folder + "/run"}))
        loaded, plugins = load_config(str(config))
        watch = Watch()
        plugins.manager.register(watch)
        run(loaded, plugins)
    return watch.trained / watch.seconds


def turn(executor: dict[str, Any], policy: str, steps: int) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ray_actors", "--turn", json.dumps([executor, policy, steps])]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env=env
    )
    return float(found.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2048, help="local steps of a run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        print(rate(*json.loads(options.turn)))
        return
    executors = {
        "ray": {"name": "ray", "address": "local", "actors": options.processes},
        "parallel": {"name": "parallel", "processes": options.processes},
    }
    result: dict[str, Any] = {}
    for policy in POLICIES:
        found: dict[str, list[float]] = {name: [] for name in executors}
        for repeat in range(options.repeats):
            for name in list(executors)[:: 1 if repeat % 2 else -1]:
                found[name].append(turn(executors[name], policy, options.steps))
        ratios = [mine / other for mine, other in zip(found["ray"], found["parallel"])]
        result[policy] = {
            "median": median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "steps_per_second": {name: median(rates) for name, rates in found.items()},
        }
        spread = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{policy:8s} of parallel {spread}   steps/s {result[policy]['steps_per_second']}", flush=True)
    result = {"ratio": {"median": min(each["median"] for each in result.values())}, "policies": result}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
