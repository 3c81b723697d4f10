"""What the simulator costs: local steps per second of a run, against a bare PyTorch loop doing the same steps."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch

from halos.config.config import load_config
from halos.hooks import hookimpl
from halos.models.gpt_neox import GPTNeoX
from halos.run.lifecycle import run

SIZES: dict[str, dict[str, int]] = {
    "hidden 64, 2 layers, [8, 65]": {
        "hidden_size": 64,
        "layers": 2,
        "heads": 4,
        "length": 64,
        "batch": 8,
        "steps": 256,
    },
    "hidden 128, 4 layers, [8, 129]": {
        "hidden_size": 128,
        "layers": 4,
        "heads": 4,
        "length": 128,
        "batch": 8,
        "steps": 64,
    },
}
WORKERS, H, VOCABULARY, SAMPLES = 4, 8, 256, 4096


class Stopwatch:
    """Seconds from a run's first moment to its last, without opening data or building the model."""

    @hookimpl(tryfirst=True)
    def on_start(self) -> None:
        self.began = time.perf_counter()

    @hookimpl(trylast=True)
    def on_finish(self) -> None:
        self.seconds = time.perf_counter() - self.began


def trained(size: dict[str, int]) -> dict[str, Any]:
    """The sections of a run that trains what the bare loop does."""
    return {
        "network": {"bandwidth_gbps": 1.0},
        "model": {"name": "gpt_neox", **{key: size[key] for key in ("hidden_size", "layers", "heads")}},
        "data": {
            "name": "synthetic",
            "vocab_size": size.get("vocabulary", VOCABULARY),
            "samples": size.get("samples", SAMPLES),
            "sequence_length": size["length"],
            "validation_samples": 0,
        },
        "train": {"batch_size": size["batch"], "micro_batch_size": size.get("micro")},
    }


def simulated(size: dict[str, int], steps: int) -> float:
    """Local steps per second of a whole run (DiLoCo, all records, trace and TensorBoard; no evaluation)."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            json.dumps(
                {
                    "cluster": {"regions": [{"workers": [1.0] * WORKERS}]},
                    **trained(size),
                    "steps": {"name": "fixed", "base": H},
                    "policy": {"name": "diloco"},
                    "budget": {"local_steps": steps},
                    "observers": {"progress": False},
                    "out": folder + "/run",
                }
            )
        )
        loaded, plugins = load_config(str(config))
        stopwatch = Stopwatch()
        plugins.manager.register(stopwatch)
        summary, _ = run(loaded, plugins)
        assert summary["steps"]["committed"] == steps, "as many steps as the bare loop"
    return steps / stopwatch.seconds


def bare(size: dict[str, int], steps: int) -> float:
    """Local steps per second of the shortest loop there is."""
    loop = stepping(size)
    next(loop)
    began = time.perf_counter()
    for _ in range(steps):
        next(loop)
    return steps / (time.perf_counter() - began)


def stepping(
    size: dict[str, int], device: str = "cpu", precision: str = "fp32", compiled: bool = False
) -> Iterator[None]:
    """Yield when all is there, and then after each step: data in memory, fused AdamW, clipping, a schedule."""
    torch.manual_seed(0)
    batch, micro = size["batch"], size.get("micro", size["batch"])
    vocabulary, samples = size.get("vocabulary", VOCABULARY), size.get("samples", SAMPLES)
    tokens = torch.randint(vocabulary, (samples, size["length"] + 1)).to(device)
    model = GPTNeoX(**{key: size[key] for key in ("hidden_size", "layers", "heads")})
    module = model.build(vocabulary, seed=0).to(device)
    forward = torch.compile(module) if compiled else module
    lower = nullcontext() if precision == "fp32" else torch.autocast(device, dtype=torch.bfloat16)
    decayed = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in module.parameters() if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))
    losses = []
    yield
    for step in count():
        for part in range(0, batch, micro):
            first = (step * batch + part) % (samples - micro + 1)
            with lower:
                loss = forward(tokens[first : first + micro]) / (batch // micro)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 8 == 7:
            losses.append(float(loss.detach()))
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {}
    for name, size in SIZES.items():
        simulated(size, WORKERS * H), bare(size, 32)  # warm up
        ratios, rates = [], []
        for repeat in range(options.repeats):
            pair = [simulated, bare] if repeat % 2 else [bare, simulated]
            rate = {one: one(size, size["steps"]) for one in pair}
            ratios.append(rate[simulated] / rate[bare])
            rates.append((rate[simulated], rate[bare]))
        sizes[name] = {
            "median": median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "simulated_steps_per_second": median(rate[0] for rate in rates),
            "bare_steps_per_second": median(rate[1] for rate in rates),
        }
        print(f"{name:32s} ratio {sizes[name]['median']:.3f}  ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    result = {"ratio": {"median": min(size["median"] for size in sizes.values())}, "sizes": sizes}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
