"""A pivot: one measure of many groups as a compact table, the values of one key side by side."""

from __future__ import annotations

from halos.compare.comparison import Comparison
from halos.compare.scale import UNKNOWN, Scale
from halos.compare.statistics import Spread
from halos.errors import UserError, did_you_mean

SEPARATOR = ":"  # MEASURE:KEY
KINDS = {"simulated_seconds": "seconds", "wall_seconds": "seconds", "bytes": "bytes", "tokens": "tokens"}
PERCENT = Scale("%", 0.01, 1)

Rows = tuple[tuple[str, ...], ...]


def pivoted(comparison: Comparison, topic: str) -> tuple[str, tuple[str, ...], Rows]:
    """Of `MEASURE:KEY` the title, the heads and the rows: a column for each value of the key, a row for all the others.

    What groups have in common is not said. Raises UserError for a measure or a key that there is not.
    """
    measure, _, key = topic.partition(SEPARATOR)
    groups = comparison.groups
    _check(topic, "measure", measure, [name for group in groups for name in comparison.names(group)])
    _check(topic, "key of groups", key, list(groups[0].values))
    varying = [name for name in groups[0].values if len({group.values[name] for group in groups}) > 1 and name != key]
    columns = list(dict.fromkeys(group.values[key] for group in groups))
    found: dict[str, dict[str, Spread]] = {}
    for group in groups:
        row = ", ".join(group.values[name] for name in varying)
        found.setdefault(row, {})[group.values[key]] = Spread.of(list(comparison.measure(group, measure).values()))
    means = [spread.mean for cells in found.values() for spread in cells.values()]
    share = measure.endswith(("goodput", "_share"))
    scale = PERCENT if share else Scale.of(means, KINDS.get(measure, ""), least=3 if measure == "final_loss" else 0)
    rows = tuple(
        (row, *(scale.spread(cells[column]) if column in cells else UNKNOWN for column in columns))
        for row, cells in found.items()
    )
    unit = f", {scale.unit}" if scale.unit else ""
    return f"{measure.replace('_', ' ').capitalize()}{unit}", (", ".join(varying), *columns), rows


def _check(topic: str, what: str, name: str, known: list[str]) -> None:
    if name not in known:
        there = ", ".join(dict.fromkeys(known))
        raise UserError(f"--tables {topic}: no {what} {name!r}{did_you_mean(name, known)}; there are {there}")
