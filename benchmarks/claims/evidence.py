"""Evidence: the numbers of a claim's runs, by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from benchmarks.claims.claim import Check, Claim
from halos.compare.amounts import KINDS, amounts
from halos.compare.comparable import diverged
from halos.compare.comparison import Comparison
from halos.compare.given import given
from halos.compare.groups import Group, grouped
from halos.compare.targets import Target
from halos.errors import UserError, did_you_mean

BySeed = Mapping[int, float]  # of the seeds of which it is known; infinite: a target that was not reached


def gathered(claim: Claim, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the sweep's runs in `folder` say, for docs/results/claims.json, and remarks on what cannot be compared.

    Raises UserError if something that is asked is not there: a run, a group or a measure, or half of a pair.
    """
    runs, unread = given([str(folder)])
    groups, doubled = grouped(runs)
    for missing in (*unread, *doubled):
        raise UserError(missing)
    comparison = Comparison.of(groups, claim.baseline)
    summaries = [run.summary or {} for run in runs]
    found = {
        "settings": claim.settings(),
        "checks": [_numbers(comparison, check) for check in claim.checks],
        "runs": len(runs),
        "hours": round(sum(each["wall_seconds"] for each in summaries) / 3600.0, 3),  # of one core
        "parameters": sorted({each["parameters"] for each in summaries if each["parameters"]}),
        "torch": sorted({each["versions"]["torch"] for each in summaries}),
        "text": sorted({each["data"]["hash"] for each in summaries if each["data"]}),
    }
    return found, list(comparison.remarks)


def _numbers(comparison: Comparison, check: Check) -> dict[str, dict[str, Optional[float]]]:
    of = _of_group(comparison, check, check.of)
    if check.other is None:
        return {"of": of}
    other = _of_group(comparison, check, check.other)
    if of.keys() != other.keys():
        raise UserError(f"{check.said()}: seeds {', '.join(of)} are no pairs with seeds {', '.join(other)}")
    return {"of": of, "other": other}


def _of_group(comparison: Comparison, check: Check, name: str) -> dict[str, Optional[float]]:
    """By seed; null: not known, as of a run that diverged, or of a target that was not reached."""
    labels = {group.label: group for group in comparison.groups}
    if name not in labels:
        raise UserError(f"{check.said()}: no group is called {name!r}{did_you_mean(name, labels)}; {', '.join(labels)}")
    found = measured(comparison, labels[name], check.measure)
    others = (measured(comparison, group, check.measure) for group in comparison.groups)
    if not found and not any(others) and not all(map(diverged, labels[name].runs.values())):
        raise UserError(f"{check.said()}: {name} has no {check.measure}")
    values = {
        seed: found.get(seed, math.nan) if run.finished is True else math.nan for seed, run in labels[name].runs.items()
    }
    return {str(seed): value if math.isfinite(value) else None for seed, value in values.items()}


def measured(comparison: Comparison, group: Group, measure: str) -> BySeed:
    """By seed: a measure of halos.compare, `loss@tokens=…`, `seconds@loss=…`, or a path into summary.json."""
    what, at, where = measure.partition("@")
    if what == "loss" and at:
        asked = [(each.of, amount) for each in amounts(comparison, [where]) for amount in each.at]
        if len(asked) > 1:
            raise UserError(f"{measure}: {where!r} is more than one amount")
        return comparison.losses(group, *asked[0]) if asked else {}
    if at:
        if what not in KINDS:
            raise UserError(f"{measure}: {what!r} is none of {', '.join(KINDS)}{did_you_mean(what, KINDS)}")
        reached = comparison.reaching(group, Target.parse(where.removeprefix("loss=")))
        return {**reached.of(what), **dict.fromkeys(reached.missed, math.inf)}
    found = comparison.measure(group, measure)
    return found or {
        seed: value for seed, run in group.runs.items() if (value := _inside(run.summary or {}, measure)) is not None
    }


def _inside(summary: Any, path: str) -> Optional[float]:
    for key in path.split("."):
        summary = summary.get(key) if isinstance(summary, dict) else None
    known = isinstance(summary, (int, float)) and not isinstance(summary, bool)
    return float(summary) if known else None
