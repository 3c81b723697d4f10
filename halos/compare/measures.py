"""Measures: what one run came to, as numbers by name. NaN is not known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.compare.drifts import drifts
from halos.compare.prices import Prices
from halos.values.records import ALL_REDUCE, GLOBAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halos.reading.columns import Columns
    from halos.reading.run import RunRecords

SHARES = ("compute", "transfer", "idle", "down")
STEPS = ("trained", "committed", "in_flight", "dropped", "lost")


def measured(run: RunRecords, prices: Optional[Prices], wall: bool = False) -> dict[str, float]:
    """What docs/compare.md lists, in that order; of a run without a summary what its records say so far."""
    summary = run.summary or _so_far(run)
    sent: Optional[dict[str, float]] = summary.get("bytes")
    steps, workers = summary.get("steps") or {}, summary.get("workers") or []
    found = {
        "final_loss": _number(summary.get("final_validation_loss")),
        "simulated_seconds": _number(summary.get("simulated_seconds")),
        "tokens": _number(summary.get("tokens")),
        **{f"{name}_steps": _number(steps.get(name)) for name in STEPS},
        "commits": _number(summary.get("commits")),
        "updates": _number(summary.get("updates")),
        "bytes": math.nan if sent is None else float(sum(sent.values())),
        **({"dollars": math.nan if sent is None else prices.dollars(run, sent)} if prices else {}),
        **{f"{name}_share": _mean([worker.get(name) for worker in workers]) for name in SHARES},
        "goodput": _number(summary.get("goodput")),
        "expected_goodput": _number(summary.get("expected_goodput")),
        **_ways("staleness", summary),
        **_ways("drift", summary),
        "hop_drift_in_updates": drifts(run, "hop").mean,
        "drift_in_updates": drifts(run, "end to end").mean,
        **({"wall_seconds": _number(summary.get("wall_seconds"))} if wall else {}),
    }
    return found


def _ways(name: str, summary: dict[str, Any]) -> dict[str, float]:
    spreads = summary.get(name) or {}
    return {
        f"{prefix}{name}{suffix}": _number((spreads.get(way) or {}).get(kind))
        for prefix, way in (("hop_", "hop"), ("", "end_to_end"))
        for suffix, kind in (("", "mean"), ("_max", "max"))
    }


def _so_far(run: RunRecords) -> dict[str, Any]:
    """What a summary would say now, as far as records tell."""
    updates = run.updates
    commits = run.commits.where((run.commits["server"] == GLOBAL) & (run.commits["kind"] == "update"))
    contributions = run.contributions.where(run.contributions["server"] == GLOBAL)
    merged = run.merged.where(run.merged["server"] == GLOBAL)
    curve = run.curve()
    times = [rows["time"].max() for rows in (updates, run.commits, run.evaluations) if len(rows)]
    recorded = run.config.get("observers", {}).get("records")
    return {
        "final_validation_loss": curve["loss"][-1] if len(curve) else None,
        "simulated_seconds": max(times) if times else None,
        "tokens": run.evaluations["tokens"].max() if len(run.evaluations) else None,
        "steps": {
            "trained": updates["steps"].sum() if recorded == "all" else None,
            "committed": commits["local_steps"][-1] if len(commits) else None,
        },
        "commits": len(commits) if recorded != "none" else None,
        "updates": len(updates) if recorded == "all" else None,
        "bytes": _by_link(run.transfers) if recorded == "all" else None,
        "staleness": {
            "hop": _spread(contributions["hop_staleness"]),
            "end_to_end": _spread(merged["staleness"]),
        },
        "drift": {"hop": _spread(contributions["hop_drift"]), "end_to_end": _spread(merged["drift"])},
    }


def _by_link(transfers: Columns) -> dict[str, float]:
    """Bytes by link, as a summary has them."""
    sent: dict[str, float] = {}
    for src, dst, nbytes in zip(transfers["src"].tolist(), transfers["dst"].tolist(), transfers["bytes"].tolist()):
        link = ALL_REDUCE if src is None or src != src else f"{src:.0f}->{dst:.0f}"
        sent[link] = sent.get(link, 0.0) + nbytes
    return sent


def _spread(values: NDArray[Any]) -> dict[str, float]:
    values = values.astype(np.float64)
    known = values[~np.isnan(values)]
    return {"mean": float(known.mean()), "max": float(known.max())} if len(known) else {}


def _mean(values: list[Any]) -> float:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
