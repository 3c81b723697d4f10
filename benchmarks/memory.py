"""Peak memory against workers: bytes per parameter that one worker more costs, in a run with real training."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HIDDEN, LAYERS = 256, 8
POLICIES = {
    # policy: (its config, what a worker more must cost at least, in bytes per parameter)
    "diloco": ({"name": "diloco"}, "8 optimizer moments + 4 its result"),
    "async_local_sgd": ({"name": "async_local_sgd"}, "8 optimizer moments + 4 a start of its own, once all have begun"),
}


def child(policy: str, workers: int) -> None:
    """One run; prints its parameters and the peak of resident memory in bytes."""
    from halos.config.config import load_config
    from halos.models.building import shapes_of
    from halos.run.lifecycle import run

    sections = {
        "cluster": {"regions": [{"workers": [1.0 - 0.5 * i / workers for i in range(workers)]}]},
        "network": {"bandwidth_gbps": 1.0},
        "model": {"name": "gpt_neox", "hidden_size": HIDDEN, "layers": LAYERS, "heads": 4},
        "data": {"name": "synthetic", "samples": 512, "sequence_length": 8, "validation_samples": 0},
        "train": {"batch_size": 1},
        "steps": {"name": "fixed", "base": 1},
        "policy": POLICIES[policy][0],
        "budget": {"local_steps": 4 * workers},
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        quiet = {"progress": False, "tensorboard": False, "trace": False}
        config.write_text(json.dumps(sections | {"observers": quiet, "out": folder + "/run"}))
        loaded, plugins = load_config(str(config))
        parameters = sum(int(np.prod(shape)) for shape in shapes_of(loaded.model, loaded.data.vocabulary()).values())
        run(loaded, plugins)
    print(json.dumps([parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 16, 32])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    result = {}
    for policy, (_, expected) in POLICIES.items():
        peaks = []
        for workers in options.workers:
            command = [sys.executable, "-m", "benchmarks.memory", "--child", policy, str(workers)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            parameters, peak = json.loads(output.stdout)
            peaks.append(peak)
        slope = float(np.polyfit(options.workers, peaks, 1)[0])
        result[policy] = {"workers": options.workers, "peak_bytes": peaks, "bytes_per_parameter": slope / parameters}
        mib = ", ".join(f"{workers}: {peak / 2**20:.0f}" for workers, peak in zip(options.workers, peaks))
        print(f"{policy:16s} {slope / parameters:5.2f} bytes per parameter and worker ({expected})   peak MiB {mib}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
