"""Sums for the summary: of each measure its mean and maximum, by server, worker and region."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

AGES = ("versions", "seconds", "steps", "tree_distance")
SIZES = ("drift", "drift_by_norm", "drift_by_delta", "drift_rms", "gap")
ANGLES = ("redundancy", "alignment", "spread", "consensus", "adam_drift", "adam_drift_by_delta")
PROBED = ("staleness_error", "staleness_cosine", "noise_floor", "shift", "stepped_loss", "stepped_loss_fresh")
FUNCTION = ("kl", "js", "loss_change")
HOP = (*AGES, *SIZES, *ANGLES, *PROBED, *FUNCTION)
WAY = (*AGES, *SIZES, *PROBED, *FUNCTION)

Sums = dict[str, list[float]]  # by measure: how many, their sum, the largest


class Books:
    """Adds numbers up; `sums` is all of it, plain, for checkpoints too. Keys are `hop of …` and `way of …`."""

    def __init__(self, more: tuple[str, ...] = ()) -> None:
        """`more` measures than there are always."""
        self.sums: dict[str, Sums] = {}
        self._hop, self._way = (*HOP, *more), (*WAY, *more)

    def add(self, line: dict[str, Any]) -> None:
        """A line of drift.jsonl: under its server, its worker and its region, where there is one of each."""
        for key in ("all", f"server {line['server']}", *_owners(line["workers"], line["regions"])):
            self._count(f"hop of {key}", line)
        for way in line["end_to_end"]:
            for key in ("all", *_owners([way["worker"]], [way["region"]])):
                self._count(f"way of {key}", way)

    def _count(self, key: str, numbers: dict[str, Any]) -> None:
        sums = self.sums.setdefault(key, {"": [0.0, 0.0, 0.0]})
        sums[""][0] += 1.0
        for name, value in (*numbers.items(), *(numbers["probe"] or {}).items()):
            if name in self._hop and value is not None:
                known = sums.get(name)
                if known is None:
                    sums[name] = [1.0, value, value]
                else:
                    known[0] += 1.0
                    known[1] += value
                    known[2] = max(known[2], value)

    def summary(self, workers: list[tuple[int, int]], regions: int) -> dict[str, Any]:
        """Return means and maxima; `workers` are ids and regions."""
        servers = [key.removeprefix("hop of server ") for key in self.sums if key.startswith("hop of server ")]
        return {
            "contributions": self._number("hop of all"),
            **self._both("all"),
            "servers": [
                {
                    "server": server,
                    "contributions": self._number(f"hop of server {server}"),
                    "hop": self._measures(f"hop of server {server}", self._hop),
                }
                for server in servers
            ],
            "workers": [{"worker": id, "region": region, **self._both(f"worker {id}")} for id, region in workers],
            "regions": [{"region": index, **self._both(f"region {index}")} for index in range(regions)],
        }

    def _both(self, key: str) -> dict[str, Any]:
        return {
            "hop": self._measures(f"hop of {key}", self._hop),
            "end_to_end": self._measures(f"way of {key}", self._way),
        }

    def _number(self, key: str) -> int:
        return int(self.sums.get(key, {"": [0.0]})[""][0])

    def _measures(self, key: str, names: tuple[str, ...]) -> dict[str, Optional[dict[str, float]]]:
        sums = self.sums.get(key, {})
        return {
            name: {"mean": sums[name][1] / sums[name][0], "max": sums[name][2]} if name in sums else None
            for name in names
        }


def _owners(workers: list[int], regions: list[int]) -> Iterator[str]:
    """Whose a contribution is, where it is one worker's, or one region's."""
    if len(set(workers)) == 1:
        yield f"worker {workers[0]}"
    if len(set(regions)) == 1:
        yield f"region {regions[0]}"
