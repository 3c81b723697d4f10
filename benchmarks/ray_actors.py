"""What Ray costs on one machine: local steps per second of `executor: ray` over those of `executor: parallel`.

Each turn is a process of its own, one after another: a run with as many actors as the other has processes, and the
other. What is timed is the run from its first moment to its last, not how long Ray takes to start; beside that, the
processor time of all processes in it, Ray's own included, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.parallel import POLICIES, SMALL, Watch, said, sections_of, watched
from halos import hookimpl


class Meter(Watch):
    """Also seconds of processor time, of this process and all that descend from it."""

    @hookimpl(trylast=True)
    def on_start(self) -> None:
        self.spent = -processor()
        super().on_start()

    @hookimpl(trylast=True)
    def on_finish(self) -> None:
        super().on_finish()
        self.spent += processor()


def processor() -> float:
    """Seconds of processor time that this process and its living descendants have had."""
    found: dict[int, tuple[int, float]] = {}  # by process, its parent and its seconds
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rsplit(") ", 1)[1].split()
            found[int(status.parent.name)] = int(fields[1]), sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    ours, more = set[int](), {os.getpid()}
    while more:
        ours |= more
        more = {number for number, (parent, _) in found.items() if parent in ours} - ours
    return sum(found[number][1] for number in ours)


def measured(executor: dict[str, Any], policy: str, steps: int) -> dict[str, float]:
    """Local steps of a run per second, and per second of processor time."""
    watch = Meter()
    watched(sections_of(policy, executor, steps, SMALL), watch)
    return {
        "steps_per_second": watch.trained / watch.seconds,
        "steps_per_processor_second": watch.trained / watch.spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2048, help="local steps of a run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        print(json.dumps(measured(*json.loads(options.turn))))
        return
    executors = {
        "ray": {"name": "ray", "address": "local", "actors": options.processes},
        "parallel": {"name": "parallel", "processes": options.processes},
    }
    result: dict[str, Any] = {}
    for policy in POLICIES:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in executors}
        for repeat in range(options.repeats):
            for name in list(executors)[:: 1 if repeat % 2 else -1]:
                turn = json.dumps([executors[name], policy, options.steps])
                found[name].append(said("benchmarks.ray_actors", "--turn", turn))
        wall, processor_time = (
            [mine[unit] / other[unit] for mine, other in zip(found["ray"], found["parallel"])]
            for unit in ("steps_per_second", "steps_per_processor_second")
        )
        rates = {name: median(each["steps_per_second"] for each in several) for name, several in found.items()}
        result[policy] = {
            "median": median(wall),
            "min": min(wall),
            "max": max(wall),
            "by_processor_time": median(processor_time),
            "steps_per_second": rates,
        }
        print(
            f"{policy:8s} of parallel {median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})   by processor time"
            f" {median(processor_time):.3f} ({min(processor_time):.3f} to {max(processor_time):.3f})",
            flush=True,
        )
    result = {"ratio": {"median": min(each["median"] for each in result.values())}, "policies": result}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
