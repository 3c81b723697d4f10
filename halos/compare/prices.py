"""Prices of traffic: so many dollars per gigabyte, by the regions that it goes from and to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halos.config.paths import expanded
from halos.config.yaml_text import parse
from halos.errors import UserError, did_you_mean, shown
from halos.values.records import ALL_REDUCE

if TYPE_CHECKING:
    from halos.reading.run import RunRecords

GIGABYTE = 1e9
PAIR = re.compile(r"(.+?)\s*->\s*(.+)")
KEYS = ("default", "within")


@dataclass(frozen=True)
class Prices:
    """Dollars per GB (1e9 bytes). What stays within a region is free unless said otherwise, as clouds have it."""

    default: float = 0.0  # from one region to another
    within: float = 0.0  # from a region to itself
    pairs: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by names of regions, (from, to)

    def of(self, src: str, dst: str) -> float:
        """Dollars per GB from one region to another."""
        return self.pairs.get((src, dst), self.within if src == dst else self.default)

    def dollars(self, run: RunRecords, sent: Mapping[str, float]) -> float:
        """What the run's traffic costs, given its bytes by link as a summary has them: `0->1`, `all_reduce`.

        Of a collective only the sum over its ring's links is recorded, M of them among M workers, all of the same
        bytes. With workers in R > 1 regions R links are taken to lead from one region to another, at the mean price
        over all pairs of these regions, and M − R to stay within one, at the mean price within these.
        """
        regions, total = _regions(run), 0.0
        names = [name for name, _ in regions]
        for link, nbytes in sent.items():
            if link == ALL_REDUCE:
                price = self._ring([(name, workers) for name, workers in regions if workers])
            else:
                src, dst = (names[int(end)] for end in link.split("->"))
                price = self.of(src, dst)
            total += nbytes / GIGABYTE * price
        return total

    def _ring(self, regions: Sequence[tuple[str, int]]) -> float:
        """Dollars per GB on the links of a ring, in the mean."""
        workers = sum(count for _, count in regions)
        inside = sum(count * self.of(name, name) for name, count in regions) / workers
        if len(regions) < 2:
            return inside
        between = [self.of(src, dst) for (src, _), (dst, _) in permutations(regions, 2)]
        crossing = len(regions) / workers
        within = sum(self.of(name, name) for name, _ in regions) / len(regions)
        return crossing * sum(between) / len(between) + (1.0 - crossing) * within

    def unused(self, runs: Sequence[RunRecords]) -> Iterator[str]:
        """A line on every pair of which no run has both regions: a slip of the pen, or a list for more than these."""
        there = [{name for name, _ in _regions(run)} for run in runs]
        for src, dst in self.pairs:
            if not any({src, dst} <= names for names in there):
                unknown = next((name for name in (src, dst) if not any(name in names for names in there)), src)
                hint = did_you_mean(unknown, sorted({name for names in there for name in names}))
                yield f"--prices: no run has the regions of '{src} -> {dst}'{hint}"


def prices(text: str) -> Prices:
    """Prices as `--prices` has them: a number, of every GB that leaves its region, or the name of a YAML file.

    The file has `default`, `within` and any pair of regions, `us -> eu: 0.05`. UserError says what is wrong.
    """
    try:
        return Prices(_price("--prices", float(text)))
    except ValueError:
        pass
    path = Path(expanded(text))
    if not text.strip() or not path.exists():
        raise UserError(f"--prices: {text!r} is neither a number nor a file")
    try:
        section = parse(path.read_text(encoding="utf-8-sig"))  # numbers as in configurations: 2e-2
    except OSError as error:
        raise UserError(f"--prices: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"--prices: {path} is no YAML: {error}") from None
    if not isinstance(section, dict):
        raise UserError(f"--prices: {path} is no mapping; write, for example, default: 0.02 and us -> eu: 0.05")
    given: dict[str, float] = {}
    pairs: dict[tuple[str, str], float] = {}
    for key, value in section.items():
        pair = PAIR.fullmatch(str(key))
        price = _price(f"--prices: {path}: {key}", value)
        if pair:
            if (pair[1], pair[2]) in pairs:
                raise UserError(f"--prices: {path}: {shown(key)} is given twice")
            pairs[pair[1], pair[2]] = price
        elif key in KEYS:
            given[key] = price
        else:
            hint = did_you_mean(str(key), KEYS)
            raise UserError(f"--prices: {path}: {shown(key)} is none of default, within or FROM -> TO{hint}")
    return Prices(**given, pairs=pairs)


def _price(key: str, value: Any) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0.0 <= value < math.inf:
        raise UserError(f"{key}: {shown(value)} is not a number of dollars per GB, 0 or more")
    return float(value)


def _regions(run: RunRecords) -> list[tuple[str, int]]:
    """The names of the run's regions, and their workers, in order of index."""
    regions = run.config.get("cluster", {}).get("regions") or []
    return [
        (str(region.get("name") or f"region-{index}"), len(region.get("workers") or []))
        for index, region in enumerate(regions)
    ]
