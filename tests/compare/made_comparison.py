"""Two groups of two seeds, made up so that everything about them can be worked out by hand.

`slow` ends after 40 s, `quick` after 10 s with more steps; every loss of seed 2 is two above that of seed 1, so that
groups differ by 0.5 and 0.7 for each seed: a spread of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from halos.compare.comparison import Comparison
from halos.compare.groups import grouped
from halos.compare.prices import Prices
from halos.reading.run import read
from tests.compare.made_runs import Points, write_run

GB = 1_000_000_000
SLOW: dict[int, Points] = {
    1: [(0.0, 0, 4.0), (10.0, 200, 3.0), (40.0, 400, 2.0)],
    2: [(0.0, 0, 6.0), (10.0, 200, 5.0), (40.0, 400, 4.0)],
}
QUICK: dict[int, Points] = {
    1: [(0.0, 0, 4.0), (5.0, 200, 3.5), (10.0, 500, 2.3)],  # 2.7 after 400 steps
    2: [(0.0, 0, 6.0), (5.0, 200, 5.5), (10.0, 500, 4.3)],  # 4.7
}
SENT = {"slow": ((10.0, 1 * GB), (40.0, 1 * GB)), "quick": ((5.0, 4 * GB), (10.0, 4 * GB))}


def make(
    folder: Path,
    more: Sequence[tuple[str, int, Points, dict[str, Any]]] = (),
    baseline: Optional[str] = None,
    prices: Optional[Prices] = None,
    by: Optional[list[str]] = None,
) -> Comparison:
    """Of `slow`, `quick` and `more` runs: a label, seed, points, and options for `write_run`."""
    runs = [(label, seed, points[seed], {}) for label, points in (("slow", SLOW), ("quick", QUICK)) for seed in (1, 2)]
    made = []
    for number, (label, seed, points, options) in enumerate([*runs, *more]):
        options = {"labels": {"method": label}, "transfers": SENT.get(label, ()), **options}
        made.append(read(write_run(folder / f"{label}-{seed}-{number}", points, seed=seed, **options)))
    groups, _ = grouped(made, by)
    return Comparison.of(groups, baseline, prices)
