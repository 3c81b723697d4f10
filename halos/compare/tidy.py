"""The comparison as one tidy CSV file: a row per run and measure, and one per group and measure, unrounded."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from halos.compare.amounts import Amounts
from halos.compare.comparison import Comparison
from halos.compare.groups import Group
from halos.compare.statistics import Paired, Spread, ratio
from halos.compare.targets import Target
from halos.errors import UserError, from_here

COLUMNS = ("measure", "value", "sd", "count", "minus_baseline", "minus_sd", "low", "high", "pairs")
Values = Mapping[int, float]


def write(path: Path, comparison: Comparison, at: Sequence[Amounts], targets: Sequence[Target]) -> None:
    """Write it; what is not known is empty. Raises UserError if it cannot be written.

    A run's row has its group, seed and folder; a group's none of the latter two, its value is the mean, and `low` and
    `high` are the 95 % interval of `minus_baseline`, or of `value` if that is a ratio to the baseline already.
    """
    keys = list(dict.fromkeys(key for group in comparison.groups for key in group.values))
    named = [f"label.{key}" if key in ("group", "seed", "run", *COLUMNS) else key for key in keys]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(("group", *named, "seed", "run", *COLUMNS))
            for group in comparison.groups:
                place = [group.label, *(group.values.get(key, "") for key in keys)]
                for seed, cells in _rows(comparison, group, at, targets):
                    folder = "" if seed is None else from_here(group.runs[seed].folder)
                    lines.writerow((*place, "" if seed is None else seed, folder, *map(_cell, cells)))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


Row = tuple[int | None, Sequence[object]]


def _rows(comparison: Comparison, group: Group, at: Sequence[Amounts], targets: Sequence[Target]) -> Iterator[Row]:
    """Seed (None: the group) and cells of each row, measure by measure."""
    baseline = comparison.against.get(group.label)
    for name, values_of in _measures(comparison, at, targets):
        values = values_of(group)
        theirs = values_of(baseline) if baseline is not None and baseline is not group else {}
        for seed, value in values.items():
            minus = value - theirs[seed] if seed in theirs else math.nan
            yield seed, (name, value, "", "", minus, *[""] * 4)
        spread, pair = Spread.of(list(values.values())), Paired.of(values, theirs)
        if spread.count:
            yield (
                None,
                (name, spread.mean, spread.deviation, spread.count, *_paired(pair)),
            )
    if baseline is not None and baseline is not group:
        for target in targets:
            ours, base = comparison.reaching(group, target), comparison.reaching(baseline, target)
            pair = ratio(base.of("seconds"), ours.of("seconds"))
            if pair.count:
                cells = (f"times_as_fast@loss={target.key}", pair.mean, "", pair.count, "", "")
                yield None, (*cells, pair.low, pair.high, pair.count)


def _paired(pair: Paired) -> Sequence[object]:
    return (pair.mean, pair.deviation, pair.low, pair.high, pair.count) if pair.count else [""] * 5


def _measures(
    comparison: Comparison, at: Sequence[Amounts], targets: Sequence[Target]
) -> Iterator[tuple[str, Callable[[Group], Values]]]:
    """Names, and what gives a group's values by seed."""
    for amounts in at:
        for amount in amounts.at:
            yield (
                f"loss@{amounts.of}={amount:.15g}",
                lambda group, of=amounts.of, amount=amount: comparison.losses(group, of, amount),  # type: ignore[misc]
            )
    for target in targets:
        for kind in ("seconds", "tokens", "bytes"):
            yield (
                f"{kind}@loss={target.key}",
                lambda group, target=target, kind=kind: comparison.reaching(group, target).of(kind),  # type: ignore[misc]
            )
    names = dict.fromkeys(name for each in comparison.measures.values() for runs in each.values() for name in runs)
    for name in names:
        yield name, lambda group, name=name: comparison.measure(group, name)  # type: ignore[misc]


def _cell(value: object) -> object:
    """As it is written: unknown is empty."""
    return "" if isinstance(value, float) and math.isnan(value) else value
