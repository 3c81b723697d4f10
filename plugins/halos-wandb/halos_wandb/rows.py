"""Rows of numbers out of what a run tells: what is logged, and when; of any tracker, since none is named here.

Every row has the three axes. A point of what commits bring is the mean over those since the last point, so that none is
lost; of evaluations some are left out. How far apart points are depends on how many there were and on nothing else: a
run that is resumed, or extended, has the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Optional

from halos import GLOBAL, Commit, Evaluation, Experiment, LostJob, Transfer, Update

HOURS, TOKENS, STEPS = "simulated hours", "tokens", "local steps"
AXES = (HOURS, TOKENS, STEPS)
LOSSES = {"loss": HOURS, "loss by tokens": TOKENS, "loss by local steps": STEPS}  # group → what it is drawn against
ROOM = 100  # numbers between a row's and the next one's, for rows that only the end brings
LINKED_REGIONS = 6  # with more regions, traffic has no curves by link: they would be too many


class Row(NamedTuple):
    """Numbers by name; rows are numbered in their order, which leaves gaps."""

    number: int
    values: dict[str, float]


class Sparse:
    """Lets the first `points` of many through, then one whenever there are 1/points more."""

    def __init__(self, points: int) -> None:
        self._points, self._seen, self._next = points, 0, 1

    def due(self) -> bool:
        self._seen += 1
        if self._seen < self._next:
            return False
        self._next = self._seen + max(1, self._seen // self._points)
        return True


class Mean:
    """The mean, weighed, of what was added since it was last taken; what is not a number does not count."""

    def __init__(self) -> None:
        self._sum, self._weight = 0.0, 0.0

    def add(self, value: Optional[float], weight: float = 1.0) -> None:
        if value is not None and math.isfinite(value):
            self._sum += weight * value
            self._weight += weight

    def take(self) -> float:
        """NaN if nothing was added."""
        mean = self._sum / self._weight if self._weight else math.nan
        self._sum = self._weight = 0.0
        return mean


class Rows:
    """One run's. What it is told makes a row or none; `rest` are those of what has none yet."""

    def __init__(self, experiment: Experiment, points: int) -> None:
        self._regions = experiment.cluster.regions
        self._tokens_per_step = experiment.tokens_per_step
        self._points = points
        self._number = 0
        self._commits, self._evaluations = Sparse(points), dict[str, Sparse]()
        self._loss, self._staleness, self._drift = Mean(), Mean(), Mean()
        self._hop_staleness, self._hop_drift = Mean(), Mean()
        self._trained = self._lr_step = self._lost = 0
        self._computed = [0.0] * len(self._regions)  # seconds, of what has arrived
        self._bytes = Counter[tuple[Optional[int], Optional[int], str]]()  # by link and kind of transfer
        self._commit: Optional[tuple[int, float, int]] = None  # local steps, time and version of one without a row
        self._unwritten: dict[str, Evaluation] = {}  # by name, those without one

    def update(self, update: Update) -> None:
        self._trained += update.steps
        self._lr_step = update.lr_step
        self._computed[update.region] += update.seconds

    def lost(self, lost: LostJob) -> None:
        self._lost += 1

    def transfer(self, transfer: Transfer) -> None:
        self._bytes[transfer.src, transfer.dst, transfer.kind] += transfer.bytes

    def commit(self, commit: Commit) -> Optional[Row]:
        if commit.server != GLOBAL or commit.kind != "update":
            return None
        self._number += ROOM
        for share in commit.shares:
            self._hop_staleness.add(share.hop_staleness)
            self._hop_drift.add(share.hop_drift)
            for way in share.end_to_end:
                self._staleness.add(way.staleness)
                self._drift.add(way.drift)
            for update in share.updates:
                self._loss.add(update.train_loss, update.steps)
        self._commit = (commit.local_steps, commit.time, commit.version)  # not the commit: it holds tensors
        return self._row(self._committed()) if self._commits.due() else None

    def evaluation(self, evaluation: Evaluation) -> Optional[Row]:
        self._number += ROOM
        name = evaluation.set + ("" if evaluation.of == GLOBAL else f" of {evaluation.of}")
        if name not in self._evaluations:
            self._evaluations[name] = Sparse(self._points)
        if self._evaluations[name].due():
            self._unwritten.pop(name, None)
            return self._row(_evaluated(name, evaluation))
        self._unwritten[name] = evaluation
        return None

    def rest(self) -> Iterator[Row]:
        """The last of what has been left out, at the end of a run."""
        left = [] if self._commit is None else [(self._commit[1], self._committed())]
        left += [(each.time, _evaluated(name, each)) for name, each in self._unwritten.items()]
        self._unwritten.clear()
        for number, (_, values) in enumerate(sorted(left, key=lambda each: each[0]), self._number + 1):
            yield self._row(values)._replace(number=min(number, self._number + ROOM - 1))

    def _row(self, values: dict[str, float]) -> Row:
        return Row(self._number, {name: value for name, value in values.items() if math.isfinite(value)})

    def _committed(self) -> dict[str, float]:
        assert self._commit is not None, "there was one"
        (steps, time, version), self._commit = self._commit, None
        loss = self._loss.take()
        return {
            **_axes(time, max(self._trained, steps) * self._tokens_per_step, steps),
            **{f"{group}/train": loss for group in LOSSES},
            "staleness/hop (versions)": self._hop_staleness.take(),
            "staleness/end to end (versions)": self._staleness.take(),
            "drift/hop (L2 distance)": self._hop_drift.take(),
            "drift/end to end (L2 distance)": self._drift.take(),
            "progress/global model (versions)": version,
            "progress/learning rate (steps of its schedule)": self._lr_step,
            "progress/lost jobs": self._lost,
            **{f"utilization/{name}": share for name, share in self._utilization(time)},
            **self._traffic(),
        }

    def _utilization(self, time: float) -> Iterator[tuple[str, float]]:
        """By region, the share of its workers' time so far that computed what has arrived."""
        for region, seconds in zip(self._regions, self._computed):
            available = len(region.workers) * time
            yield region.name, seconds / available if available else math.nan

    def _traffic(self) -> dict[str, float]:
        """Megabytes so far: in all, by kind of transfer and, if regions are few, by link."""
        count = Counter[str]()
        for (src, dst, kind), nbytes in self._bytes.items():
            names = ["total", kind]
            if src is not None and dst is not None and len(self._regions) <= LINKED_REGIONS:
                names.append(f"{self._regions[src].name} → {self._regions[dst].name}")
            count.update({f"traffic/{name} (MB)": nbytes for name in names})
        return {name: nbytes / 1e6 for name, nbytes in count.items()}


def _axes(time: float, tokens: int, steps: int) -> dict[str, float]:
    return {HOURS: time / 3600, TOKENS: tokens, STEPS: steps}


def _evaluated(name: str, evaluation: Evaluation) -> dict[str, float]:
    return {
        **_axes(evaluation.time, evaluation.tokens, evaluation.local_steps),
        **{f"{group}/{name}": evaluation.loss for group in LOSSES},
        **{
            f"metrics/{metric.replace('_', ' ')} on {name}": value
            for metric, value in evaluation.metrics.items()
            if value is not None
        },
    }
