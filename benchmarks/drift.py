"""What halos-drift costs: processor time of a run with it over that of the same run without, in turns."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

from halos.config.config import load_config
from halos.run.lifecycle import run

CASES = {
    "no job done again": "observers.extra.drift.probed=0",
    "2 % of the jobs done again": "observers.extra.drift.probed=0.02",
    "2 %, and blocks": "observers.extra.drift={probed: 0.02, blocks: true}",
}


def seconds(config: str, steps: int, *changes: str) -> float:
    """Processor time of a run of so many local steps without evaluations; it computes all the time, in one thread."""
    quiet = ["observers.progress=false", "evaluate.every_local_steps=1000000000"]
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_config(config, [f"budget.local_steps={steps}", f"out={folder}/run", *quiet, *changes])
        began = time.process_time()
        run(*loaded)
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default="configs/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    seconds(options.config, 64, CASES["2 % of the jobs done again"])  # what is loaded at first
    ratios: dict[str, list[float]] = {name: [] for name in CASES}
    for turn in range(options.repeats):
        changes = ["observers.extra.drift=null", *CASES.values()]
        order = [*range(len(changes))][:: -1 if turn % 2 else 1]
        took = {index: seconds(options.config, options.steps, changes[index]) for index in order}
        for index, name in enumerate(CASES, start=1):
            ratios[name].append(took[index] / took[0])
    found = {
        name: {"median": median(several), "low": min(several), "high": max(several)} for name, several in ratios.items()
    }
    for name, numbers in found.items():
        print(f"{name:30s} {numbers['median']:.3f}   {numbers['low']:.3f} to {numbers['high']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
