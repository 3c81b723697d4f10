"""TensorBoard curves whose clock is the simulated one: the RELATIVE axis shows simulated time.

TensorBoard's RELATIVE is the time since a curve's own first point, so every curve has one at simulated 0: counters
begin at 0 there; what has no value yet (a training loss, say) is not a number, which TensorBoard shows as a triangle
and leaves out of lines, ranges and smoothing. For the same reason a curve has fewer points than the 1,000 that
TensorBoard keeps of each: of more it drops any, the first too. They lie evenly over the budget. A point of what commits
bring is the mean over those since the last point, so that none is lost; evaluations are left out beyond so many.

Scalars are written against local steps, losses once more (`loss by tokens/…`) against tokens. Groups are opened in
alphabetical order: no name may come before `loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from halos.errors import UserError
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import writing
from halos.values.records import ALL_REDUCE, GLOBAL, Commit, Evaluation, Summary, Transfer, Update, mean_loss

POINTS = 900  # per tag, about; with the first and the last fewer than TensorBoard keeps
SHARES = ("compute", "transfer", "idle", "down")
COUNTERS = ("progress", "progress by tokens", "traffic")  # groups of what is 0 at simulated 0
LINKED_REGIONS = 6  # with more regions, traffic has no curves by link: they would be too many
KINDS = {"pull": "pulls", "push": "pushes", "send": "sends", ALL_REDUCE: "all-reduces"}


class Thinning:
    """Lets about POINTS records through: evenly over the budget; ever fewer, if only a target loss ends the run."""

    def __init__(self) -> None:
        self._part = -1  # of POINTS equal parts of the budget, that of the last point
        self._seen = self._passed = 0
        self._stride = 1

    def due(self, share: float) -> bool:
        """Whether the record at `share` (0 to 1) of the budget makes a point; 0 if the share is unknown."""
        if share > 0:
            part = int(share * POINTS)
            due = part != self._part
            self._part = part
            return due
        self._seen += 1
        if self._seen % self._stride:
            return False
        self._passed += 1
        if self._passed % POINTS == 0:
            self._stride *= 2
        return True


class Mean:
    """The mean, weighed, of what was added since it was last taken; what is not a number does not count."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float, weight: int = 1) -> None:
        if value == value:
            self._sum += weight * value
            self._count += weight

    def take(self) -> float:
        """NaN if no number was added."""
        mean = self._sum / self._count if self._count else math.nan
        self._sum, self._count = 0.0, 0
        return mean


class TensorBoard:
    """Writes `events.out.tfevents…`; a resumed run writes them all again, into a new file."""

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        # Seconds to import, so only in runs that want it.
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary as Scalars  # type: ignore[import-untyped]
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"observers.tensorboard: {error}; pip install tensorboard, or set it to false") from error
        self._summary, self._value, self._make_writer = Scalars, Scalars.Value, SummaryWriter
        self._folder, self._real = experiment.folder, experiment.real
        self._tokens_per_step = experiment.tokens_per_step
        self._steps, self._seconds = experiment.local_steps, experiment.seconds
        self._regions = [region.name for region in experiment.cluster.regions]
        self._thinning = Thinning()
        self._loss, self._staleness, self._drift = Mean(), Mean(), Mean()
        self._hop_staleness, self._hop_drift = Mean(), Mean()
        self._trained = 0
        self._bytes: dict[tuple[Optional[int], Optional[int], str], int] = {}  # by link and kind of transfer
        self._begun: set[str] = set()  # tags that have a point
        self._pending: tuple[int, float, int] | None = None  # the last commit, if it has no point of its own
        self._evaluations: dict[str, Thinning] = {}  # by what was evaluated
        self._unwritten: dict[str, Evaluation] = {}  # the last ones, if they have no point
        self._lr_step = 0
        self._experiment = experiment
        self._waiting: Optional[list[tuple[dict[str, float], int, float]]] = None  # points, before there is a file
        if experiment.resumed_at is None:
            self._open()
        else:
            self._waiting = []

    @hookimpl
    def on_resume(self, time: float) -> None:
        """All points have come again: into a new file, in the place of those of the run so far."""
        before, waiting, self._waiting = sorted(self._folder.glob("events.out.tfevents*")), self._waiting or [], None
        self._open()
        with self._writing():
            for scalars, step, at in waiting:
                self._event(scalars, step, at)
            self._writer.flush()
            for file in before:
                file.unlink()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._trained += update.steps
        self._lr_step = update.lr_step

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        of_link = (transfer.src, transfer.dst, transfer.kind)
        self._bytes[of_link] = self._bytes.get(of_link, 0) + transfer.bytes

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.server != GLOBAL or commit.kind != "update":
            return
        for share in commit.shares:
            self._hop_staleness.add(share.hop_staleness)
            self._hop_drift.add(share.hop_drift)
            for way in share.end_to_end:
                self._staleness.add(way.staleness)
                self._drift.add(way.drift)
        if self._real:
            loss = mean_loss(commit)
            if loss is not None:
                self._loss.add(loss, sum(share.steps for share in commit.shares))
        self._pending = (commit.local_steps, commit.time, commit.version)  # not the commit: it holds tensors
        if self._thinning.due(self._share(commit)):
            self._point(*self._pending)
            self._pending = None

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        name = evaluation.set + ("" if evaluation.of == GLOBAL else f" of {evaluation.of}")
        if self._evaluations.setdefault(name, Thinning()).due(self._share(evaluation)):
            self._unwritten.pop(name, None)
            self._evaluation(name, evaluation)
        else:
            self._unwritten[name] = evaluation

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        if self._pending is not None:
            self._point(*self._pending)
        for name, evaluation in self._unwritten.items():
            self._evaluation(name, evaluation)
        steps, now = summary.get("local_steps", 0), summary.get("simulated_seconds", 0.0)
        with self._writing():
            table = _table(("region", "workers", *SHARES), self._shares(summary.get("workers", [])))
            self._writer.add_text("use of simulated time", table, steps, walltime=now)
            self._writer.close()

    def _open(self) -> None:
        with self._writing():
            self._writer = self._make_writer(str(self._folder), flush_secs=10)
            self._writer.add_text("config", _table(("key", "value"), _flat(self._experiment.config)), 0, walltime=0.0)
            self._writer.flush()

    def _point(self, steps: int, time: float, version: int) -> None:
        tokens = max(self._trained, steps) * self._tokens_per_step
        loss = self._loss.take()
        hours = time / 3600
        scalars = {
            "loss/train": loss,
            "staleness/hop (versions)": self._hop_staleness.take(),
            "staleness/end to end (versions)": self._staleness.take(),
            "parameter drift/hop (L2 distance)": self._hop_drift.take(),
            "parameter drift/end to end (L2 distance)": self._drift.take(),
            "progress/global model (versions)": version,
            "progress/learning rate (steps of its schedule)": self._lr_step,
            "progress/simulated time (hours)": hours,
            **self._traffic(),
        }
        with self._writing():
            self._write(scalars, steps, time)
            self._write(
                {"loss by tokens/train": loss, "progress by tokens/simulated time (hours)": hours}, tokens, time
            )

    def _evaluation(self, name: str, evaluation: Evaluation) -> None:
        metrics = {
            f"metrics/{metric.replace('_', ' ')} on {name}": value
            for metric, value in evaluation.metrics.items()
            if value is not None
        }
        with self._writing():
            self._write({f"loss/{name}": evaluation.loss, **metrics}, evaluation.local_steps, evaluation.time)
            self._write({f"loss by tokens/{name}": evaluation.loss}, evaluation.tokens, evaluation.time)

    def _share(self, record: Commit | Evaluation) -> float:
        """Return the share of the budget, 0 to 1, by the global model's local steps, by those trained, or by time."""
        trained = self._trained / self._experiment.trained_steps
        return max(record.local_steps / self._steps, trained, record.time / self._seconds)

    def _traffic(self) -> dict[str, float]:
        """Megabytes so far, in all, by kind of transfer and, if regions are few, by link."""
        count = {"traffic/total (MB)": 0}
        for (src, dst, kind), nbytes in self._bytes.items():
            names = ["total", KINDS.get(kind, kind)]
            if src is not None and dst is not None and len(self._regions) <= LINKED_REGIONS:
                names.append(f"{self._regions[src]} → {self._regions[dst]}")
            for tag in [f"traffic/{name} (MB)" for name in names]:
                count[tag] = count.get(tag, 0) + nbytes
        return {tag: nbytes / 1e6 for tag, nbytes in count.items()}

    def _write(self, scalars: dict[str, float], step: int, time: float) -> None:
        """Write those that are numbers; before a tag's first point, if that is later, one at simulated 0."""
        known = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
        if fresh := known.keys() - self._begun:
            self._begun |= fresh
            if time > 0.0:
                self._event({tag: 0.0 if tag.split("/")[0] in COUNTERS else math.nan for tag in sorted(fresh)}, 0, 0.0)
        if known:
            self._event(known, step, time)

    def _event(self, scalars: dict[str, float], step: int, time: float) -> None:
        """All of them as one event: ten times cheaper than `add_scalar` for each."""
        if self._waiting is not None:
            self._waiting.append((scalars, step, time))
            return
        values = [self._value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._writer._get_file_writer().add_summary(self._summary(value=values), step, time)  # type: ignore[no-untyped-call]

    def _shares(self, workers: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
        """Per region, how its workers spent the simulated time, on average."""
        for index, name in enumerate(self._regions):
            several = [worker for worker in workers if worker["region"] == index]
            if several:
                means = [sum(worker[key] for worker in several) / len(several) for key in SHARES]
                yield (name, str(len(several)), *(f"{mean:.1%}" for mean in means))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self._folder / "events.out.tfevents"):
            yield


def _flat(config: Any, key: str = "") -> Iterator[tuple[str, ...]]:
    """`(a.b, value)` for every leaf of the configuration."""
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, f"`{config}`"


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
