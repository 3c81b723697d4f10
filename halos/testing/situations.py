"""The clusters that policies are tried on: few and many workers, with links that are free or slow, and with jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from halos.config.yaml_text import Section
from halos.testing.recording import tiny

MODEL_BYTES = 1_000_000
PATIENCE = 20  # what a run may take, times the length that rounds one after the other would have


@dataclass(frozen=True)
class Situation:
    """A cluster of 1, 2 or 16 workers, in one, two or four regions, whose steps take a second."""

    workers: int
    links: str  # free | slow: a model takes five of a round's times | jitter: half of one, and workers are unequal

    def __str__(self) -> str:
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}, {self.links}"

    def sections(self, steps: int, rounds: int) -> Section:
        """A run of so many rounds of `steps` local steps, on noisy gradients, so that it matters who trains on what."""
        speeds = [1.0, 0.7, 0.4, 0.9] if self.links == "jitter" else [1.0]
        count = {1: 1, 2: 2}.get(self.workers, 4)  # of regions
        several = [speeds[worker % len(speeds)] for worker in range(self.workers // count)]
        transfer = {"free": 0.0, "slow": 5.0, "jitter": 0.5}[self.links] * steps  # seconds
        gbps = MODEL_BYTES * 8 / transfer / 1e9 if transfer else math.inf
        longest = rounds * (steps / min(speeds) + 2 * transfer)
        return tiny(
            cluster={"regions": [{"workers": several}] * count, "step_time_ms": 1000.0},
            network={"bandwidth_gbps": gbps},
            compute={"name": "testing_jitter" if self.links == "jitter" else "constant"},
            model={"size": 3, "noise": 0.3, "dtype": "float64", "wire_bytes": MODEL_BYTES},
            data={"samples": 4096, "validation_samples": 1},
            steps={"base": steps},
            budget={"local_steps": rounds * steps * self.workers, "simulated_hours": PATIENCE * longest / 3600},
        )


SITUATIONS = [Situation(workers, links) for workers in (1, 2, 16) for links in ("free", "slow", "jitter")]
