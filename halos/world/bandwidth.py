"""Bandwidth over time: what one link carries when, from a table of changes and what others take of it."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from halos.errors import ConfigError, UserError, did_you_mean, from_here, require, shown
from halos.world.fair import Link

COLUMNS = ["time_s", "link", "gbps"]


@dataclass
class Background:
    """What other tenants take of a link's bandwidth for a time: `share` of it, and `gbps` more."""

    link: str  # its name
    gbps: float = 0.0  # Gbit/s
    share: float = 0.0  # of the bandwidth; 0 or more, less than 1
    at_seconds: float = 0.0  # simulated; from then on
    seconds: float = math.inf  # so long; `.inf`: for ever

    def __post_init__(self) -> None:
        require(0.0 <= self.gbps < math.inf, "gbps", self.gbps, "zero or a positive number of Gbit/s")
        require(0.0 <= self.share < 1.0, "share", self.share, "in [0, 1)")
        require(0.0 <= self.at_seconds < math.inf, "at_seconds", self.at_seconds, "a time of the run")
        require(self.seconds > 0.0, "seconds", self.seconds, "a positive time")


@dataclass
class Change:
    """From `time_s` on a link has `gbps`."""

    time_s: float  # simulated seconds
    link: str  # its name
    gbps: float  # Gbit/s; 0: nothing gets through

    def __post_init__(self) -> None:
        require(0.0 <= self.time_s < math.inf, "time_s", self.time_s, "a time of the run")
        require(self.gbps >= 0.0, "gbps", self.gbps, "zero or a positive number of Gbit/s")


class Bandwidth:
    """What one link carries, in bits per second: piecewise constant.

    `configured` until the first of `changes`, (seconds, bits per second) in order of time; these begin anew after each
    `period`, if that is finite. `taken` of it is what others have: (from, until, share, bits per second).
    """

    def __init__(
        self,
        configured: float,
        changes: Sequence[tuple[float, float]] = (),
        period: float = math.inf,
        taken: Sequence[tuple[float, float, float, float]] = (),
    ) -> None:
        self._times = [0.0, *(time for time, _ in changes)]
        self._rates = [configured, *(rate for _, rate in changes)]
        self._period = period
        self._taken = taken

    def at(self, time: float) -> tuple[float, float]:
        """Return what it carries at `time`, and until when that stays so, which is later; both in seconds."""
        rate, until = self._scheduled(time)
        share, less = 1.0, 0.0
        for start, end, part, bits in self._taken:
            if start <= time < end:
                share *= 1.0 - part
                less += bits
                until = min(until, end)
            elif time < start:
                until = min(until, start)
        return max(0.0, rate * share - less), until

    @property
    def ever(self) -> bool:
        """Whether it carries anything at some time; one whose changes repeat, again and again."""
        edges = [edge for start, end, _, _ in self._taken for edge in (start, end) if edge < math.inf]
        moments = [*self._times, *edges]
        if self._period < math.inf:  # when all that others take has come or gone
            begun = (math.floor(max(edges, default=0.0) / self._period) + 1) * self._period
            moments = [begun + time for time in self._times]
        return any(self.at(moment)[0] > 0.0 for moment in moments)

    def _scheduled(self, time: float) -> tuple[float, float]:
        if len(self._times) == 1:
            return self._rates[0], math.inf
        begun = 0.0 if self._period == math.inf else math.floor(time / self._period) * self._period
        index = bisect_right(self._times, time - begun)
        while True:
            until = begun + self._times[index] if index < len(self._times) else begun + self._period
            if until > time:
                return self._rates[index - 1], until
            # By a rounding error it has been so already.
            begun, index = (begun, index + 1) if index < len(self._times) else (begun + self._period, 1)


def bandwidths(
    configured: Mapping[str, float],
    changes: Sequence[Change],
    repeat: Optional[float],
    background: Sequence[Background],
) -> dict[Link, Bandwidth]:
    """Return each link's bandwidth over time, by name; `configured` in bits per second, infinite without a limit.

    `repeat`: after so many seconds the changes begin anew; None: never. Raises ConfigError for changes and background
    of links that are not there, have no limit, or come to nothing.
    """
    found: dict[Link, Bandwidth] = {
        name: _bandwidth(name, bits, changes, repeat, background) for name, bits in configured.items()
    }
    _check_names(configured, changes, background)
    seen: set[tuple[float, str]] = set()
    for index, change in enumerate(changes):
        fits = repeat is None or change.time_s < repeat
        require(fits, f"changes[{index}].time_s", change.time_s, "before changes_repeat_seconds")
        twice = (change.time_s, change.link)
        require(twice not in seen, f"changes[{index}].time_s", change.time_s, "a moment used once for a link")
        seen.add(twice)
    if repeat is not None and not changes:
        raise ConfigError("changes_repeat_seconds", "given without changes")
    return found


def _bandwidth(
    name: str, bits: float, changes: Sequence[Change], repeat: Optional[float], background: Sequence[Background]
) -> Bandwidth:
    """One link's."""
    own = sorted((each.time_s, each.gbps * 1e9) for each in changes if each.link == name)
    taken = [
        (each.at_seconds, each.at_seconds + each.seconds, each.share, each.gbps * 1e9)
        for each in background
        if each.link == name
    ]
    bandwidth = Bandwidth(bits, own, math.inf if repeat is None else repeat, taken)
    if (own or taken) and not bandwidth.ever:
        raise ConfigError("", f"link {name!r} never carries anything: see its changes and background")
    return bandwidth


def _check_names(configured: Mapping[str, float], changes: Sequence[Change], background: Sequence[Background]) -> None:
    links = [(f"changes[{index}].link", each.link) for index, each in enumerate(changes)]
    links += [(f"background[{index}].link", each.link) for index, each in enumerate(background)]
    for key, link in links:
        if link not in configured:
            names = ", ".join(list(configured)[:20]) + ", …" * (len(configured) > 20)
            raise ConfigError(key, f"{shown(link)} is no link{did_you_mean(link, configured)}; there are {names}")
        if configured[link] == math.inf:
            raise ConfigError(key, f"{shown(link)} has no limit that could change; give it one")


def read_changes(path: Path) -> list[Change]:
    """Return the changes that a CSV file holds, in its order. Raises UserError for one that cannot be used."""
    where = from_here(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    heads = [head.strip() for head in rows[0]] if rows else []
    if heads != COLUMNS:
        raise UserError(f"{where}: its first line is {','.join(heads)!r}, not {','.join(COLUMNS)!r}")
    changes = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            time, link, gbps = (cell.strip() for cell in row)
            changes.append(Change(float(time), link, float(gbps)))
        except ConfigError as error:
            raise UserError(f"{where}, line {number}: {error}") from None
        except ValueError:
            raise UserError(f"{where}, line {number}: {','.join(row)!r} is not a time, a link and a number") from None
    return changes
