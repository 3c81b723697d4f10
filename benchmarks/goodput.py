"""Goodput under crashes: which share of the allocated compute ends up in the global model (timing mode)."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Optional

from halos import Commit, hookimpl
from halos.config.config import resolved
from halos.config.yaml_text import Section
from halos.run.assembly import assemble

ROOT = Path(__file__).parents[1]
PLUGINS = ("halos-data-parallel/halos_data_parallel.py", "halos-decoupled-diloco/halos_decoupled_diloco/__init__.py")
RESULTS = ROOT / "docs/results/goodput.json"
WORKERS = {16: 600.0, 128: 80.0, 1024: 12.0, 10_000: 2.0}  # and the simulated hours of their runs
# The first merges wait for everybody, and leave much in flight: after two hours most of what was trained.
LONGER = {(10_000, hours, "decoupled, K = M"): 8.0 for hours in (100.0, 10.0)}
BETWEEN_FAILURES = (None, 1000.0, 100.0, 10.0)  # mean, of one worker, hours
STEP, PERIOD = 20.0, 30  # seconds of a local step; local steps between two synchronisations (H)
TO_REPAIR = 1.0 / 6.0  # mean, hours


def policies(workers: int) -> dict[str, Section]:
    """What is compared, by the name it has in the table."""
    decoupled = {"name": "decoupled_diloco", "fragments": 3, "averaging": "mean"}
    return {
        "data-parallel": {"name": "data_parallel"},
        "DiLoCo": {"name": "diloco"},
        "decoupled, K = M": decoupled,
        "decoupled, K = M/2": {**decoupled, "quorum": workers // 2},
    }


def sections(policy: Section, workers: int, between_failures: Optional[float], hours: float, seed: int) -> Section:
    """A billion parameters in fp32, regions with 100 Gbit/s between and inside them."""
    crashes = {"name": "crashes", "between_failures_hours": between_failures, "to_repair_hours": TO_REPAIR}
    return {
        "seed": seed,
        "plugins": [str(ROOT / "plugins" / each) for each in PLUGINS],
        "cluster": {"regions": [{"workers": [1.0] * (workers // 4)}] * 4, "step_time_ms": STEP * 1e3},
        "network": {"bandwidth_gbps": 100.0},
        "model": {"name": "sized", "parameters": 1_000_000_000},
        "data": {"name": "synthetic"},
        "steps": {"name": "fixed", "base": PERIOD},
        "policy": policy,
        "faults": {"name": "none"} if between_failures is None else crashes,
        "budget": {"simulated_hours": hours},
        "executor": {"name": "timing"},
    }


def measure(policy: Section, workers: int, between_failures: Optional[float], hours: float, seed: int) -> Section:
    """One run's goodput, and what it is made of."""
    if between_failures is None:  # every period (or step) is like the one before, so a few will do
        steps = {"data_parallel": 10.5, "diloco": 2.5 * PERIOD}
        hours = steps.get(policy["name"], 2 * PERIOD) * STEP / 3600.0
    began = time.perf_counter()
    given = sections(policy, workers, between_failures, hours, seed)
    config, plugins = resolved(given)
    run = assemble(config, plugins)
    simulation = run.simulation
    last = LastCommit()
    plugins.manager.register(last)
    simulation.run(config.policy)
    ledger = simulation.ledger
    # A round that is under way says nothing yet, unless crashes are what it waits for.
    whole_rounds = policy["name"] == "diloco" or (between_failures is None and not ledger.in_flight)
    seconds = last.time if whole_rounds else simulation.now
    settled = ledger.committed + ledger.dropped
    crashes = [each.start for each in simulation.faults.outages() if each.start < seconds]
    computing = ledger.trained * STEP / (workers * seconds)
    return {
        "goodput": computing * ledger.committed / settled if settled else 0.0,
        "hours": seconds / 3600.0,
        "crashes": len(crashes),
        "committed": ledger.committed,
        "dropped": ledger.dropped,
        "in_flight": ledger.in_flight,
        "policy_report": config.policy.report() if hasattr(config.policy, "report") else {},
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


class LastCommit:
    """When it was."""

    time = 0.0

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self.time = commit.time


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| workers | a worker crashes every | " + " | ".join(policies(16)) + " |",
        "|---|---|" + "---|" * len(policies(16)),
    ]
    for workers in WORKERS:
        for hours in BETWEEN_FAILURES:
            found = [results.get(key(workers, hours, name)) for name in policies(workers)]
            cells = ["–" if each is None else percent(each["goodput"]) for each in found]
            often = "never" if hours is None else f"{hours:g} h"
            lines.append(f"| {workers:,} | {often} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(share: Optional[float]) -> str:
    return "0 %" if not share else f"{100 * share:.{1 if share >= 0.1 else 2}f} %"


def key(workers: int, between_failures: Optional[float], name: str) -> str:
    return f"{workers} workers, {'no crashes' if between_failures is None else f'{between_failures:g} h'}, {name}"


def save(results: dict[str, Any], path: Path) -> None:
    """A line per run, in the order of the table."""
    names = [
        key(workers, hours, name) for workers in WORKERS for hours in BETWEEN_FAILURES for name in policies(workers)
    ]
    lines = [f"{json.dumps(name)}: {json.dumps(results[name])}" for name in names if name in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, default=RESULTS, help="what it has is not run again")
    parser.add_argument("--workers", type=int, nargs="*", choices=list(WORKERS), default=list(WORKERS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    for workers in options.workers:
        for between_failures in BETWEEN_FAILURES:
            for name, policy in policies(workers).items():
                run_name = key(workers, between_failures, name)
                if run_name in results:
                    continue
                hours = LONGER.get((workers, between_failures, name), WORKERS[workers])
                found = measure(policy, workers, between_failures, hours, options.seed)
                results[run_name] = found
                print(f"{run_name}: {percent(found['goodput'])}, {found['wall_seconds']} s", flush=True)
                save(results, options.json)
    print(table(results))


if __name__ == "__main__":
    main()
