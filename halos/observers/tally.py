"""The run's books: how each worker spent the simulated time, what went over each link, how stale.

Hears the records, as an observer does, and ends with `finish`, whose result goes into the summary.
Writes nothing itself.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, Optional

from halos.hooks import hookimpl
from halos.values.records import ALL_REDUCE, GLOBAL, Commit, CutShort, Evaluation, Transfer, Update, mean_loss
from halos.world.cluster import Cluster
from halos.world.faults import Outage


class Tally:
    """Counts a run's records; `finish` gives the sums.

    A worker's time is *down* (so a fault has it), *compute* (its jobs' compute intervals, those of lost
    jobs too), *transfer* (its own pulls and pushes, and whatever else of a collective it did not spend
    computing or down: every worker takes part in every collective) and *idle*, the rest. Relies on
    promises of the simulation: a worker has one job at a time, its pull and push lie inside its job, it
    has no job while it is down, and collectives are serial.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._workers = cluster.workers
        count = len(cluster.workers)
        self.updates = 0
        self.trained_steps = 0
        self.commits = 0  # of kind update, at the global server
        self.committed_steps = 0
        self.final_train_loss: Optional[float] = None  # mean over the last such commit
        self.final_validation_loss: Optional[float] = None
        self._evaluated: dict[str, tuple[dict[str, float], dict[str, Any]]] = {}  # by model: by set, the latest
        self._steps = [0] * count
        self._compute = [0.0] * count
        self._own_transfer = [0.0] * count
        self._useful = 0.0  # seconds of computing what was committed
        self._bytes: dict[tuple[Optional[int], Optional[int]], int] = {}
        self._hop = Way()  # what the global server merged, from its own base
        self._end_to_end = Way()  # from where its workers began
        # Collectives as they end, and the time they took up to each one's end.
        self._starts, self._ends, self._taken = array("d"), array("d"), array("d")
        # Per worker: busy intervals [a, b, a, b, …] that a collective yet to be heard of may overlap, and
        # the time it was busy during collectives, so far as known.
        self._open = [array("d") for _ in range(count)]
        self._hidden = [0.0] * count

    @hookimpl
    def on_update(self, update: Update) -> None:
        worker = update.worker
        start, end = update.compute
        self.updates += 1
        self.trained_steps += update.steps
        self._steps[worker] += update.steps
        self._compute[worker] += end - start
        if update.server is None:
            self._busy(worker, start, end)
        else:  # a round trip: it was pulling, computing or pushing all the time
            self._busy(worker, update.start_time, update.time)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        link = (transfer.src, transfer.dst)
        self._bytes[link] = self._bytes.get(link, 0) + transfer.bytes
        worker = transfer.worker
        if worker is not None:
            self._own_transfer[worker] += transfer.time - transfer.start_time
        elif transfer.kind == ALL_REDUCE:
            self._collective(transfer.start_time, transfer.time)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.kind != "update" or commit.server != GLOBAL:
            return
        self.commits += 1
        self.committed_steps = commit.local_steps
        hop, end_to_end = self._hop.add, self._end_to_end.add
        for share in commit.shares:
            hop(share.hop_staleness, share.hop_drift)
            for way in share.end_to_end:
                end_to_end(way.staleness, way.drift)
            for update in share.updates:
                start, end = update.compute
                self._useful += end - start
        self.final_train_loss = mean_loss(commit)

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        losses, metrics = self._evaluated.setdefault(evaluation.of, ({}, {}))
        losses[evaluation.set], metrics[evaluation.set] = evaluation.loss, evaluation.metrics
        if evaluation.set == "validation" and evaluation.of == GLOBAL:
            self.final_validation_loss = evaluation.loss

    def goodput(self, now: float) -> Optional[float]:
        """Useful compute over allocated compute: seconds of computing what was committed, over workers · seconds."""
        return self._useful / (len(self._workers) * now) if now > 0 else None

    def expected_goodput(
        self, now: float, dropped: float, pending: float, running: Iterable[CutShort] = ()
    ) -> Optional[float]:
        """Goodput, if of what the end left undecided the same share had been committed as of what was decided.

        `dropped` and `pending` are the seconds of computing what was dropped, and what had arrived and may still have
        been committed; `running` are the jobs under way, of which counts what was computed until `now`. None if nothing
        was decided, but something is undecided.
        """
        goodput, decided = self.goodput(now), self._useful + dropped
        for job in running:
            if job.lost > now:
                pending += max(0.0, min(now, job.until) - job.computes)
        if goodput is None or not pending:
            return goodput
        return goodput + pending / (len(self._workers) * now) * self._useful / decided if decided else None

    def finish(
        self,
        now: float,
        cut_short: Iterable[CutShort] = (),
        collective: Optional[float] = None,
        outages: Iterable[Outage] = (),
    ) -> dict[str, Any]:
        """The books at simulated time `now`, under the summary's keys; call it once.

        `cut_short` are jobs that did not arrive. `collective`: since when one was under way. `outages`: when which
        workers were down.
        """
        if collective is not None:
            self._collective(collective, now)
        for job in cut_short:
            stops = min(now, job.lost)
            computes, pushes = min(stops, job.computes), min(stops, job.until)
            self._compute[job.worker] += pushes - computes
            self._own_transfer[job.worker] += (computes - job.began) + (stops - pushes)
            self._busy(job.worker, job.began, stops)
        down = [0.0] * len(self._workers)
        for index, start, end in outages:
            down[index] += end - start
            self._busy(index, start, end)
        collectives = self._taken[-1] if self._taken else 0.0
        workers = []
        for worker in self._workers:
            index = worker.id
            self._settle(index)
            compute = transfer = off = 0.0
            if now > 0:
                off = min(1.0, down[index] / now)
                compute = min(1.0 - off, self._compute[index] / now)
                uncovered = max(0.0, collectives - self._hidden[index])
                transfer = min(1.0 - off - compute, (self._own_transfer[index] + uncovered) / now)
            workers.append(
                {
                    "worker": index,
                    "region": worker.region,
                    "compute": compute,
                    "transfer": transfer,
                    "idle": max(0.0, 1.0 - off - compute - transfer),
                    "down": off,
                    "local_steps": self._steps[index],
                }
            )
        losses, metrics = self._evaluated.pop(GLOBAL, ({}, {}))
        links = sorted(self._bytes, key=lambda link: (link[0] is None, link))
        return {
            "simulated_seconds": now,
            "local_steps": self.committed_steps,
            "commits": self.commits,
            "updates": self.updates,
            "final_train_loss": self.final_train_loss,
            "final_validation_loss": self.final_validation_loss,
            "final_losses": losses,
            "final_metrics": metrics,
            "final_losses_of": {of: theirs for of, (theirs, _) in self._evaluated.items()},
            "bytes": {_link(*link): self._bytes[link] for link in links},
            "workers": workers,
            "staleness": {"hop": self._hop.staleness.summary(), "end_to_end": self._end_to_end.staleness.summary()},
            "drift": {"hop": self._hop.drift.summary(), "end_to_end": self._end_to_end.drift.summary()},
        }

    def _busy(self, worker: int, start: float, end: float) -> None:
        """Note that `worker` computed or transferred; what follows without a gap becomes one interval."""
        intervals = self._open[worker]
        if intervals and intervals[-1] == start:
            intervals[-1] = end
        else:
            intervals.append(start)
            intervals.append(end)
            # Only after another collective is there anything to settle, so this is amortised.
            if len(intervals) > 64 and self._ends and intervals[0] < self._ends[-1]:
                self._settle(worker)

    def _collective(self, start: float, end: float) -> None:
        if self._ends:
            start = max(start, self._ends[-1])
        if end > start:
            self._taken.append((self._taken[-1] if self._taken else 0.0) + end - start)
            self._starts.append(start)
            self._ends.append(end)

    def _settle(self, worker: int) -> None:
        """Account `worker`'s busy time up to the last collective's end: no later one reaches back."""
        if not self._ends:
            return
        horizon = self._ends[-1]
        left = array("d")
        intervals = self._open[worker]
        hidden = 0.0
        for start, end in zip(intervals[::2], intervals[1::2], strict=True):
            if start < horizon:
                hidden += self._taken_until(min(end, horizon)) - self._taken_until(start)
                start = horizon
            if end > start:
                left.append(start)
                left.append(end)
        self._hidden[worker] += hidden
        self._open[worker] = left

    def _taken_until(self, time: float) -> float:
        """Seconds of [0, time] during which a collective was under way."""
        index = bisect_right(self._starts, time) - 1
        if index < 0:
            return 0.0
        return self._taken[index] - max(0.0, self._ends[index] - time)


class Spread:
    """Mean and maximum of what is known."""

    __slots__ = ("count", "max", "sum")

    def __init__(self) -> None:
        self.count, self.sum, self.max = 0, 0.0, -math.inf

    def summary(self) -> dict[str, Optional[float]]:
        """`mean` and `max`; None of nothing."""
        return {"mean": self.sum / self.count, "max": self.max} if self.count else {"mean": None, "max": None}


class Way:
    """How stale contributions are, and how far the model has moved meanwhile."""

    __slots__ = ("drift", "staleness")

    def __init__(self) -> None:
        self.staleness, self.drift = Spread(), Spread()

    def add(self, staleness: int, drift: float) -> None:
        """Count one of them; a drift of NaN is none."""
        spread = self.staleness  # twice the same, without a call: this is done for every update of a run
        spread.count += 1
        spread.sum += staleness
        if staleness > spread.max:
            spread.max = staleness
        if drift == drift:  # in a timing run there is none
            spread = self.drift
            spread.count += 1
            spread.sum += drift
            if drift > spread.max:
                spread.max = drift


def _link(src: Optional[int], dst: Optional[int]) -> str:
    return ALL_REDUCE if src is None else f"{src}->{dst}"
