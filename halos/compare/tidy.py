"""The comparison as one tidy CSV file: a row per run and measure, and one per group and measure, unrounded."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from halos.compare.amounts import Amounts
from halos.compare.comparison import Comparison
from halos.compare.groups import Group
from halos.compare.statistics import Paired, Spread, ratio
from halos.compare.targets import Target
from halos.errors import from_here
from halos.observers.files import replacing

COLUMNS = ("measure", "value", "sd", "count", "censored", "minus_baseline", "minus_sd", "low", "high", "pairs")
SPENT = ("seconds", "tokens", "bytes")

Values = Mapping[str, Mapping[int, float]]  # by measure and seed; NaN: it was not reached
Row = tuple[int | None, Mapping[str, object]]  # of a seed, or of the group; by column


def write(path: Path, comparison: Comparison, at: Sequence[Amounts], targets: Sequence[Target]) -> None:
    """Write it; what is not known is empty. Raises UserError if it cannot be written.

    A run's row has its group, seed and folder; a group's none of the latter two, its value is the mean, and `low` and
    `high` are the 95 % interval of `minus_baseline`, or of `value` if that is a ratio to the baseline already.
    `censored` is how many seeds did not reach a target: they are in no mean.
    """
    keys = list(dict.fromkeys(key for group in comparison.groups for key in group.values))
    named = [f"label.{key}" if key in ("group", "seed", "run", *COLUMNS) else key for key in keys]
    values = {group.label: dict(_values(comparison, group, at, targets)) for group in comparison.groups}
    initial = {group.label: dict(_initial(comparison, group, at)) for group in comparison.groups}
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("group", *named, "seed", "run", *COLUMNS))
        for group in comparison.groups:
            place = [group.label, *(group.values.get(key, "") for key in keys)]
            baseline = comparison.against.get(group.label)
            theirs: Values = {} if baseline is None or baseline is group else values[baseline.label]
            unpaired = initial[group.label], initial[baseline.label] if baseline else {}
            for seed, cells in _rows(values[group.label], theirs, unpaired):
                run = ("", "") if seed is None else (seed, from_here(group.runs[seed].folder))
                lines.writerow((*place, *run, *(_cell(cells.get(column)) for column in COLUMNS)))


def _values(
    comparison: Comparison, group: Group, at: Sequence[Amounts], targets: Sequence[Target]
) -> Iterator[tuple[str, Mapping[int, float]]]:
    """What is known of a group's runs, measure by measure."""
    for amounts in at:
        for amount in amounts.at:
            yield _at(amounts.of, amount), comparison.losses(group, amounts.of, amount)
        if amounts.of == "seconds":
            tokens = comparison.reached("tokens")
            yield f"seconds@tokens={tokens:.15g}", comparison.done(group, "tokens", tokens)
    for target in targets:
        reached = comparison.reaching(group, target)
        for kind in SPENT:
            yield f"{kind}@loss={target.key}", {**reached.of(kind), **dict.fromkeys(reached.missed, math.nan)}
    for name in comparison.names(group):
        yield name, comparison.measure(group, name)


def _initial(comparison: Comparison, group: Group, at: Sequence[Amounts]) -> Iterator[tuple[str, set[int]]]:
    """Of which seeds a loss is that of a model that nothing had been committed to: it is held against none."""
    for amounts in at:
        for amount in amounts.at:
            losses = comparison.losses(group, amounts.of, amount)
            yield _at(amounts.of, amount), losses.keys() - comparison.learned(group, amounts.of, amount).keys()


def _at(of: str, amount: float) -> str:
    return f"loss@{of}={amount:.15g}"


def _rows(
    ours: Values, theirs: Values, unpaired: tuple[Mapping[str, set[int]], Mapping[str, set[int]]]
) -> Iterator[Row]:
    """A group's rows, given its values and its baseline's, and the seeds of each that are held against none."""
    for measure, values in ours.items():
        alone = unpaired[0].get(measure, set()) | unpaired[1].get(measure, set())
        others = {seed: value for seed, value in theirs.get(measure, {}).items() if seed not in alone}
        target = "@loss=" in measure
        for seed, value in values.items():
            minus = value - others.get(seed, math.nan)
            censored = int(math.isnan(value)) if target else None
            yield seed, {"measure": measure, "value": value, "censored": censored, "minus_baseline": minus}
        spread, pair = Spread.of(list(values.values())), Paired.of(values, others)
        if values:
            cells = {"measure": measure, "value": spread.mean, "sd": spread.deviation, "count": spread.count}
            yield None, {**cells, "censored": len(values) - spread.count if target else None, **_paired(pair)}
        if measure.startswith("seconds@loss="):
            pair = ratio(others, values)
            if pair.count:
                cells = {"measure": measure.replace("seconds", "times_as_fast"), "value": pair.mean}
                yield None, {**cells, "low": pair.low, "high": pair.high, "count": pair.count, "pairs": pair.count}


def _paired(pair: Paired) -> Mapping[str, object]:
    if not pair.count:
        return {}
    difference = {"minus_baseline": pair.mean, "minus_sd": pair.deviation}
    return {**difference, "low": pair.low, "high": pair.high, "pairs": pair.count}


def _cell(value: object) -> object:
    """As it is written: unknown is empty."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
