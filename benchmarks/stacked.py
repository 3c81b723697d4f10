"""What stacks bring: local steps per second of `executor: stacked` over those of `inline`, by size.

Both train the same jobs, 16 workers' of one round, in turns, in one process and on one device: cuda if there is one.
Data lie in memory and nothing is recorded, so that a ratio is of training alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from halos.models.gpt_neox import GPTNeoX
from halos.training import Job
from halos.training.options import TrainOptions
from halos.training.stacked.executor import SMALL
from halos.training.stacked.network import network_of
from halos.training.stacked.stack import Stack
from halos.training.trainer import Trainer

VOCABULARY, SAMPLES = 256, 8192
SIZES: dict[str, dict[str, int]] = {  # as configs/small, but for hidden size and layers; then with few tokens a step
    "hidden 8, 1 layer, [8, 65]": {"hidden_size": 8, "layers": 1, "heads": 1, "batch": 8, "length": 64},
    "hidden 16, 2 layers, [8, 65]": {"hidden_size": 16, "layers": 2, "heads": 2, "batch": 8, "length": 64},
    "hidden 32, 2 layers, [8, 65]": {"hidden_size": 32, "layers": 2, "heads": 2, "batch": 8, "length": 64},
    "hidden 64, 2 layers, [8, 65]": {"hidden_size": 64, "layers": 2, "heads": 4, "batch": 8, "length": 64},
    "hidden 128, 5 layers, [8, 65]": {"hidden_size": 128, "layers": 5, "heads": 4, "batch": 8, "length": 64},
    "hidden 32, 2 layers, [4, 17]": {"hidden_size": 32, "layers": 2, "heads": 2, "batch": 4, "length": 16},
    "hidden 64, 2 layers, [2, 17]": {"hidden_size": 64, "layers": 2, "heads": 4, "batch": 2, "length": 16},
    "hidden 128, 5 layers, [2, 17]": {"hidden_size": 128, "layers": 5, "heads": 4, "batch": 2, "length": 16},
}


class Pair:
    """The same round of jobs, one after another and stacked."""

    def __init__(self, size: dict[str, int], options: argparse.Namespace, device: torch.device) -> None:
        train = TrainOptions(batch_size=size["batch"], precision=options.precision, compile=options.compile)
        model = GPTNeoX(**{key: size[key] for key in ("hidden_size", "layers", "heads")})
        random = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(VOCABULARY, (SAMPLES, size["length"] + 1), generator=random)
        trainers = [Trainer(model.build(VOCABULARY, 0), train, device) for _ in range(2)]
        batches = [self._read(0, first, size["batch"]) for first in (0, size["batch"])]
        for trainer in trainers:
            trainer.look(model, iter(batches))
        self._inline, other = trainers
        self._stack = Stack(other, network_of(model, other, batches), self._read, options.steps)
        self._device, self._batch, steps = device, size["batch"], options.steps
        start, each = other.initial(), steps * size["batch"]
        self._jobs = [
            Job(worker, worker, start, steps, 0, worker * each, (worker + 1) * each, 0, 0.0)
            for worker in range(options.workers)
        ]
        self.parameters = start.size
        self.work = start.size * (size["length"] + 1) * size["batch"]

    def _read(self, shard: int, first: int, count: int) -> torch.Tensor:
        first %= SAMPLES - count
        return self._tokens[first : first + count]

    def inline(self) -> None:
        for job in self._jobs:
            firsts = range(job.first_sample, job.end_sample, self._batch)
            batches = (self._read(0, first, self._batch) for first in firsts)
            self._inline.train(job.worker, job.start, job.steps, 0, batches, 0.0)

    def stacked(self) -> None:
        done = self._stack.trained(self._jobs)
        for job in self._jobs:
            self._stack.taken(job, done[job.id])

    def seconds(self, name: str) -> float:
        """Of one round: of the processor on a CPU, where others may be at work, of the clock on a GPU."""
        clock = time.process_time if self._device.type == "cpu" else time.perf_counter
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        getattr(self, name)()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="local steps of a job")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true", help="as train.compile=true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    sizes: dict[str, Any] = {}
    for name, size in SIZES.items():
        pair = Pair(size, options, device)
        pair.inline(), pair.stacked()  # warm up
        ratios, rates = [], {"inline": [0.0], "stacked": [0.0]}
        for repeat in range(options.repeats):
            seconds = {each: pair.seconds(each) for each in (list(rates) if repeat % 2 else list(rates)[::-1])}
            ratios.append(seconds["inline"] / seconds["stacked"])
            for each, took in seconds.items():
                rates[each].append(options.workers * options.steps / took)
        sizes[name] = {
            "median": median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "parameters": pair.parameters,
            "work": pair.work,
            "auto_stacks": pair.work <= SMALL or device.type != "cpu",
            "steps_per_second": {each: median(several[1:]) for each, several in rates.items()},
        }
        print(
            f"{name:32s} {pair.parameters:9,d} parameters, {pair.work / 1e6:6.1f} million a micro-batch: stacked over"
            f" inline {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
    result = {"device": str(device), "workers": options.workers, "sizes": sizes}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
