"""TensorBoard curves on the simulated clock, written when the run is over, into a file of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from halos import UserError

GROUP = "drift (plugin)"
MOST = 900  # points; TensorBoard keeps 1,000 of each curve
TITLES = {
    "versions": "age (versions)",
    "steps": "age (local steps merged meanwhile)",
    "tree_distance": "tree distance R",
    "drift": "‖d‖",
    "drift_by_norm": "‖d‖ / ‖θ‖",
    "drift_by_delta": "‖d‖ / ‖Δ‖",
    "gap": "gap (typical steps)",
    "gap_elementwise": "gap, element by element (typical steps)",
    "redundancy": "redundancy (cosine)",
    "alignment": "alignment with the outer momentum (cosine)",
    "spread": "spread within a round (mean cosine)",
    "adam_drift_by_delta": "Adam-weighted ‖d‖ / ‖Δ‖",
    "staleness_error": "staleness error",
    "noise_floor": "noise floor of the staleness error",
    "kl": "function drift (KL, nats per token)",
    "loss_change": "function drift (loss)",
    "curvature": "curvature along d",
}


class Curves:
    """Means over what was merged anywhere between two points, which are commits of the global model."""

    def __init__(self) -> None:
        self.points: list[list[Any]] = []  # local steps, simulated seconds, means by measure
        self.sums: dict[str, list[float]] = {}  # since the last point: how many, and their sum
        self.stride, self.skipped = 1, 0

    def add(self, line: dict[str, Any]) -> None:
        """A line of drift.jsonl."""
        for name, value in (*line.items(), *(line["probe"] or {}).items()):
            if name in TITLES and value is not None:
                known = self.sums.setdefault(name, [0.0, 0.0])
                known[0] += 1.0
                known[1] += value

    def point(self, steps: int, time: float) -> None:
        """The global model has changed: perhaps a point; ever fewer, the more there are."""
        self.skipped += 1
        if self.skipped < self.stride:
            return
        self.skipped = 0
        self._close(steps, time)
        if len(self.points) > MOST:
            self.points, self.stride = _halved(self.points), 2 * self.stride

    def _close(self, steps: int, time: float) -> None:
        self.points.append([steps, time, {name: [count, total] for name, (count, total) in self.sums.items()}])
        self.sums = {}

    def write(self, folder: Path) -> None:
        """Write all points; the first of a curve is at simulated 0, where it is no number yet."""
        for before in folder.glob("events.out.tfevents*.drift"):
            before.unlink()
        if not self.points:
            return
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"observers.tensorboard: {error}; pip install tensorboard, or set it to false") from error
        writer = SummaryWriter(str(folder), filename_suffix=".drift")
        names = [name for name in TITLES if any(name in sums for _, _, sums in self.points)]
        values = dict.fromkeys(names, math.nan)
        self._event(writer, Summary, values, 0, 0.0)
        for steps, time, sums in self.points:
            self._event(writer, Summary, {name: total / count for name, (count, total) in sums.items()}, steps, time)
        writer.close()

    def _event(self, writer: Any, summary: Any, values: dict[str, float], step: int, time: float) -> None:
        several = [summary.Value(tag=f"{GROUP}/{TITLES[name]}", simple_value=value) for name, value in values.items()]
        if several:
            writer._get_file_writer().add_summary(summary(value=several), step, time)

    def state(self) -> dict[str, Any]:
        """Return all of it, for a checkpoint."""
        return {"points": self.points, "sums": self.sums, "stride": self.stride, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.points, self.sums = state["points"], state["sums"]
        self.stride, self.skipped = state["stride"], state["skipped"]


def _halved(points: list[list[Any]]) -> list[list[Any]]:
    """Every two points as one, at the later's place; nothing is lost of the means."""
    found = []
    for first in range(0, len(points), 2):
        steps, time, _ = points[min(first + 1, len(points) - 1)]
        both: dict[str, list[float]] = {}
        for _, _, each in points[first : first + 2]:
            for name, (count, total) in each.items():
                known = both.setdefault(name, [0.0, 0.0])
                known[0] += count
                known[1] += total
        found.append([steps, time, both])
    return found
