"""What several processes bring: steps per second of `executor: parallel` over those of as many bare loops at once.

Each turn is a process of its own, one after another: a run with `parallel`, the same with `inline`, bare PyTorch loops,
as many at the same time as `parallel` has processes. Beside rates: seconds from the command to the first update, jobs
computed that nobody asked for, and memory of all processes together (what they share counted once), of a model that is
nothing but moments. Of HALoS it is measured without the starts that are kept for a drift in the records: `inline` keeps
them too, and they make the ratio better than it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_loop import Stopwatch, bare, trained
from halos import Inline, hookimpl
from halos.config.config import load_config
from halos.run.lifecycle import run
from halos.training.parallel.executor import Parallel

SMALL = {"hidden_size": 64, "layers": 2, "heads": 4, "length": 64, "batch": 8}  # as configs/small
LARGE = {"hidden_size": 256, "layers": 8, "heads": 4, "length": 8, "batch": 1}  # as benchmarks.memory: all is moments
SPEEDS = ([1.0, 0.9, 0.8, 0.7], [0.8, 0.7, 0.6, 0.5], [1.0, 1.0, 0.5, 0.5], [0.9, 0.6, 0.6, 0.4])  # 16 workers
ROUNDS = 6  # local steps of each worker where memory is measured: in the second all inner states are there
POLICIES: dict[str, dict[str, Any]] = {
    "diloco": {"policy": {"name": "diloco"}, "steps": {"name": "fixed", "base": 8}},
    "halos": {"policy": {"name": "halos"}, "steps": {"name": "by_speed", "base": 16}},
}


class Watch(Stopwatch):
    """Seconds of a run, local steps trained, and when the first update came."""

    def __init__(self) -> None:
        self.trained, self.first = 0, 0.0

    @hookimpl
    def on_update(self, update: Any) -> None:
        self.first = self.first or time.time()
        self.trained += update.steps


class Memory(threading.Thread):
    """The largest sum, over this process and its children, of resident bytes, those that they share counted once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, False

    def run(self) -> None:
        while not self.over:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            self.peak = max(self.peak, sum(map(proportional, ("self", *children))))
            time.sleep(0.02)


def proportional(pid: str) -> int:
    """Bytes of a process, pages that n processes have counted 1/n; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def counted(cls: type, name: str) -> list[int]:
    """Count the calls of a method that takes a job, from now on; in the list's one number."""
    calls, method = [0], getattr(cls, name)

    def call(self: Any, job: Any) -> Any:
        calls[0] += 1
        return method(self, job)

    setattr(cls, name, call)
    return calls


def sections_of(
    policy: str, executor: dict[str, Any], steps: int, size: dict[str, int], recorded: bool = True
) -> dict[str, Any]:
    """The sections of a run of the 16 workers."""
    return (
        POLICIES[policy]
        | trained(size)
        | {
            "cluster": {"regions": [{"workers": speeds} for speeds in SPEEDS]},
            "budget": {"local_steps": steps},
            "executor": executor,
            "observers": {"progress": False, "tensorboard": recorded, "trace": recorded},
        }
    )


def watched(sections: dict[str, Any], watch: Watch) -> None:
    """A run of these sections in a folder that is gone afterwards; `watch` hears of it."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(json.dumps(sections | {"out": folder + "/run"}))
        loaded, plugins = load_config(str(config))
        plugins.manager.register(watch)
        run(loaded, plugins)


def said(module: str, *arguments: str) -> dict[str, float]:
    """What a module says, as JSON in its last line, in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return found


def simulated(options: argparse.Namespace) -> dict[str, float]:
    """A run of the policy by the executor; what it came to."""
    size = LARGE if options.memory else SMALL
    # A job that is packed twice was in the hands of a process that died.
    computed, asked = counted(Parallel, "_pack"), counted(Inline, "result")
    executor = {"name": options.executor} | ({"processes": options.processes} if options.executor == "parallel" else {})
    sections = sections_of(options.policy, executor, options.steps, size, recorded=not options.memory)
    memory, watch = Memory(), Watch()
    if options.memory:
        sections |= {"steps": {"name": "fixed", "base": 1}, "record": {"end_to_end_drift": False}}
        memory.start()
    watched(sections, watch)
    memory.over = True
    return {
        "rate": watch.trained / watch.seconds,
        "first": watch.first - options.began,
        "unasked": max(0, computed[0] - asked[0]) / asked[0],
        "peak": memory.peak,
    }


def loop(steps: int, ready: Any, ended: Any) -> None:
    """One bare loop, begun when all are ready."""
    import torch

    torch.set_num_threads(1)
    bare(SMALL, 16)  # warm up
    ready.wait()
    bare(SMALL, steps)
    ended.put(time.perf_counter())


def loops(options: argparse.Namespace) -> dict[str, float]:
    """Bare loops at the same time, together as many steps as the run has."""
    context = multiprocessing.get_context("fork")
    ready, ended = context.Barrier(options.processes + 1), context.SimpleQueue()
    each = options.steps // options.processes
    several = [context.Process(target=loop, args=(each, ready, ended)) for _ in range(options.processes)]
    for process in several:
        process.start()
    ready.wait()
    began = time.perf_counter()
    seconds = max(ended.get() for _ in several) - began
    for process in several:
        process.join()
    return {"rate": each * options.processes / seconds}


def turn(options: argparse.Namespace, executor: str, policy: str, memory: bool = False) -> dict[str, float]:
    """What one process came to."""
    arguments = ["--executor", executor, "--policy", policy, "--processes", str(options.processes)]
    arguments += ["--steps", str(16 * ROUNDS if memory else options.steps), "--began", str(time.time())]
    return said("benchmarks.parallel", *arguments, *(["--memory"] if memory else []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2048, help="local steps of a run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    for hidden in ("--executor", "--policy"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.executor:
        print(json.dumps((loops if options.executor == "bare" else simulated)(options)))
        return
    result: dict[str, Any] = {}
    for policy in POLICIES:
        found: dict[str, list[dict[str, float]]] = {"parallel": [], "inline": [], "bare": []}
        for repeat in range(options.repeats):
            for name in list(found)[:: 1 if repeat % 2 else -1]:
                found[name].append(turn(options, name, policy))
        ratios, gains = (
            [mine["rate"] / other["rate"] for mine, other in zip(found["parallel"], found[name])]
            for name in ("bare", "inline")
        )
        peaks: dict[str, list[float]] = {"parallel": [], "inline": []}
        for repeat in range(options.repeats):
            for name in list(peaks)[:: 1 if repeat % 2 else -1]:
                peaks[name].append(turn(options, name, policy, memory=True)["peak"])
        memory = [mine / other for mine, other in zip(peaks["parallel"], peaks["inline"])]
        result[policy] = {
            "median": median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "over_inline": median(gains),
            "steps_per_second": {name: median(each["rate"] for each in several) for name, several in found.items()},
            "first_update_seconds": median(each["first"] for each in found["parallel"]),
            "computed_and_not_asked_for": max(each["unasked"] for each in found["parallel"]),
            "peak_bytes": peaks,
            "memory_over_inline": {"median": median(memory), "min": min(memory), "max": max(memory)},
        }
        print(
            f"{policy:8s} of bare loops {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})   of inline"
            f" {median(gains):.2f}   first update after {result[policy]['first_update_seconds']:.1f} s   not asked for"
            f" {result[policy]['computed_and_not_asked_for']:.1%}   memory {median(memory):.3f}"
            f" ({min(memory):.3f} to {max(memory):.3f})",
            flush=True,
        )
    result = {"ratio": {"median": min(each["median"] for each in result.values())}, "policies": result}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
