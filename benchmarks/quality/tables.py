"""The tables of docs/results.md, from the raw results."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.curves import Curve, Spread, steps_all_reached
from benchmarks.quality.study import Part

Raw = dict[str, dict[str, Any]]
Curves = dict[str, list[Curve]]  # by method, a curve per seed, in the order of seeds


def curves(part: Part, raw: Raw) -> Curves:
    """Of the methods all of whose seeds finished."""
    found: Curves = {}
    for each in part.methods:
        results = [raw.get(f"{part.name}/{each.name}/{seed}") for seed in part.seeds]
        if all(result is not None and result["finished"] is True for result in results):
            found[each.name] = [Curve.of(result) for result in results if result is not None]
    return found


def equal_tokens(part: Part, raw: Raw, reference: str = "diloco") -> str:
    """Losses at a quarter, half and all of the steps that every run reached, and against the reference's, by seed."""
    found = curves(part, raw)
    steps = steps_all_reached([curve for each in found.values() for curve in each])
    points = [steps // 4, steps // 2, steps]
    rows = []
    for name, each in found.items():
        losses = [Spread.of([curve.at_steps(point) for curve in each]).show() for point in points]
        pairs = list(zip(each, found.get(reference, each)))
        differences = [
            Spread.of([one.at_steps(point) - other.at_steps(point) for one, other in pairs]) for point in points
        ]
        against = ["–" if name == reference else difference.show("+.3f") for difference in differences[1:]]
        rows.append([_title(part, name), *losses, *against])
    heads = [f"{point:,} steps" for point in points]
    return table(["", *heads, *(f"minus {_title(part, reference)}, {head}" for head in heads[1:])], rows)


def equal_time(part: Part, raw: Raw, at: Sequence[str] = ()) -> str:
    """When each method has trained the steps all reached; its loss when the first of them, and those of `at`, have."""
    found = curves(part, raw)
    steps = steps_all_reached([curve for each in found.values() for curve in each])
    ends = {name: Spread.of([curve.time_at_steps(steps) for curve in each]).mean for name, each in found.items()}
    moments = sorted({ends[name] for name in at if name in ends} | {min(ends.values())})
    rows = [
        [
            _title(part, name),
            f"{ends[name]:,.0f} s",
            *(_held(each, moment, ends[name]) for moment in moments),
        ]
        for name, each in found.items()
    ]
    return table(["", f"has trained {steps:,} steps after", *(f"at {moment:,.0f} s" for moment in moments)], rows)


def _held(each: list[Curve], moment: float, end: float) -> str:
    loss = Spread.of([curve.at_time(moment) for curve in each]).show()
    return f"({loss})" if moment > end else loss  # it has long stopped


def time_to(part: Part, raw: Raw, margins: Sequence[float], reference: str = "diloco") -> str:
    """Simulated seconds until each margin above the reference's final loss of the same seed, and how many got there."""
    found = curves(part, raw)
    rows = []
    for name, each in found.items():
        pairs, cells = list(zip(each, found.get(reference, each))), []
        for margin in margins:
            reached = [one.time_to(other.loss[-1] + margin) for one, other in pairs]
            times = [time for time in reached if time is not None]
            missing = f" ({len(times)} of {len(each)} seeds)" if len(times) < len(each) else ""
            cells.append(f"{Spread.of(times).show(',.0f')} s{missing}" if times else "not reached")
        rows.append([_title(part, name), *cells])
    return table(["", *(f"{_title(part, reference)}'s final + {margin:g}" for margin in margins)], rows)


def facts(part: Part, raw: Raw) -> str:
    """What the runs cost and did, as means over seeds."""
    rows = []
    for name in curves(part, raw):
        results = [raw[f"{part.name}/{name}/{seed}"] for seed in part.seeds]

        def average(*keys: str, results: list[dict[str, Any]] = results) -> float:
            values = [result[keys[0]] if len(keys) == 1 else result[keys[0]][keys[1]] for result in results]
            return float(sum(values) / len(values))

        rows.append(
            [
                _title(part, name),
                f"{average('steps', 'trained'):,.0f}",
                f"{average('steps', 'in_flight'):,.0f}",
                f"{average('commits'):,.0f}",
                f"{average('staleness', 'mean'):.2f}",
                f"{average('simulated_seconds'):,.0f} s",
                f"{average('gigabytes'):,.0f}",
                f"{average('goodput'):.0%}",
            ]
        )
    heads = [
        "trained",
        "of them never committed",
        "global commits",
        "mean staleness",
        "simulated",
        "GB sent",
        "goodput",
    ]
    return table(["", *heads], rows)


def tuning(part: Part, raw: Raw) -> str:
    """Final loss with each value tried, the best one in bold."""
    (seed,) = part.seeds
    rows: dict[str, list[tuple[str, float]]] = {}
    titles = {}
    for each in part.methods:
        result = raw.get(f"{part.name}/{each.name}/{seed}")
        if result is not None:
            name, value = each.name.split("@")
            titles[name] = [each.title, "`" + each.changes[-1].split("=")[0] + "`"]
            loss = result["loss"][-1] if result["finished"] is True else math.inf
            rows.setdefault(name, []).append((value, loss))
    return table(["", "tuned", "final loss by value"], [[*titles[name], _tried(tried)] for name, tried in rows.items()])


def _tried(tried: list[tuple[str, float]]) -> str:
    best = min(loss for _, loss in tried)
    shown = [
        (f"{value}: {loss:.3f}" if loss < math.inf else f"{value}: diverged", loss == best) for value, loss in tried
    ]
    return ", ".join(f"**{text}**" if bold else text for text, bold in shown)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(page: Path, tables: dict[str, str]) -> None:
    """Put each table between its markers, `<!-- table NAME -->` and `<!-- end -->`, and leave the rest alone."""
    text = page.read_text()
    for name, each in tables.items():
        pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
        found = pattern.search(text)
        if not found:
            raise ValueError(f"{page} has no place for the table {name!r}")
        text = f"{text[: found.start()]}{found[1]}\n{each}\n\n{found[2]}{text[found.end() :]}"
    page.write_text(text)


def _title(part: Part, name: str) -> str:
    return next(each.title for each in part.methods if each.name == name)
