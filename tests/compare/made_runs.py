"""Run folders made up for tests: a configuration, records and a summary whose every number is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import yaml

CORPUS = "0a1b2c3d4e5f"
BATCH = 10  # tokens per local step
DATA = {"name": "text", "path": "/corpora/one", "sequence_length": 32, "validation_samples": 64, "shuffle": True}
WORKERS = [
    {"worker": 0, "region": 0, "compute": 0.5, "transfer": 0.25, "idle": 0.25, "down": 0.0, "local_steps": 2},
    {"worker": 1, "region": 1, "compute": 0.75, "transfer": 0.25, "idle": 0.0, "down": 0.0, "local_steps": 2},
]

Points = Sequence[tuple[float, int, Optional[float]]]  # (seconds, trained steps, loss), in order of time


def write_run(
    folder: Path,
    points: Points,
    *,
    seed: int = 1,
    policy: str = "diloco",
    lr: float = 0.7,
    labels: Optional[dict[str, Any]] = None,
    data: Optional[dict[str, Any]] = None,
    corpus: str = CORPUS,
    transfers: Sequence[tuple[float, int]] = (),
    updates: Sequence[dict[str, Any]] = (),
    commits: Sequence[dict[str, Any]] = (),
    finished: Any = True,
    executor: str = "inline",
    config: Optional[dict[str, Any]] = None,
    summary: Optional[dict[str, Any]] = None,
) -> Path:
    """A run of two workers in regions `us` and `eu`; `transfers` are (end, bytes) from the first to the second.

    `finished=None`: it is still going, without a summary.
    """
    folder.mkdir(parents=True)
    section = {
        "cluster": {"regions": [{"name": "us", "workers": [1.0]}, {"name": "eu", "workers": [1.0]}]},
        "policy": {"name": policy, "outer": {"name": "nesterov", "lr": lr}},
        "data": {**DATA, "seed": None, "split_seed": None, **(data or {})},
        "executor": {"name": executor, "device": "auto", "threads": 1},
        "observers": {"records": "all"},
        "name": folder.name,
        "out": str(folder),
        "seed": seed,
        "labels": labels or {},
        **(config or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(section, sort_keys=False))
    _lines(
        folder / "evaluations.jsonl",
        [
            {
                "time": seconds,
                "version": row,
                "local_steps": steps,
                "trained_steps": steps,
                "tokens": steps * BATCH,
                "loss": loss,
                "set": "validation",
                "of": "global",
                "metrics": {},
            }
            for row, (seconds, steps, loss) in enumerate(points)
        ],
    )
    ends = [
        {"start_time": 0.0, "time": end, "src": 0, "dst": 1, "bytes": nbytes, "kind": "send"}
        for end, nbytes in transfers
    ]
    _lines(folder / "transfers.jsonl", ends)
    _lines(folder / "updates.jsonl", updates)
    _lines(folder / "commits.jsonl", commits)
    if finished is not None:
        steps, total = points[-1][1] if points else 4, sum(nbytes for _, nbytes in transfers)
        whole = {
            "seed": seed,
            "simulated_seconds": points[-1][0] if points else 8.0,
            "commits": 2,
            "updates": 4,
            "final_validation_loss": points[-1][2] if points else None,
            "bytes": {"0->1": total},
            "workers": WORKERS,
            "staleness": {"hop": {"mean": 1.0, "max": 2}, "end_to_end": {"mean": 1.5, "max": 3}},
            "drift": {"hop": {"mean": 0.5, "max": 1.0}, "end_to_end": {"mean": 0.75, "max": 1.5}},
            "tokens": steps * BATCH,
            "steps": {"trained": steps, "committed": steps, "dropped": 0, "in_flight": 0, "lost": 0},
            "data": {} if executor == "timing" else {"hash": corpus},
            "goodput": 0.5,
            "expected_goodput": 0.625,
            "wall_seconds": 3.0,
            "finished": finished,
            **(summary or {}),
        }
        (folder / "summary.json").write_text(json.dumps(whole))
    return folder


def _lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
