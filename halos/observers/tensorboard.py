"""TensorBoard curves whose clock is the simulated one: the RELATIVE axis shows simulated time.

Scalars are written against local steps, and once more (`by_tokens/…`) against tokens. Of a run's
commits at most about 1,000 make a point, evenly over the budget; a point is then the mean over the
commits since the last one, so that none is lost. Evaluations are all written.
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
from halos.values.records import Commit, Evaluation, Summary, Transfer, Update, mean_loss

POINTS = 1000  # per tag, about
SHARES = ("compute", "transfer", "idle")


class Thinning:
    """Lets about POINTS commits through: evenly over the budget; ever fewer, if only a target loss ends the run."""

    def __init__(self) -> None:
        self._part = -1  # of POINTS equal parts of the budget, that of the last point
        self._seen = self._passed = 0
        self._stride = 1

    def due(self, share: float) -> bool:
        """Whether the commit at `share` (0 to 1) of the budget makes a point; 0 if the share is unknown."""
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
    """The mean of what was added since it was last taken."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._sum += value
        self._count += 1

    def take(self) -> float:
        """NaN if nothing was added."""
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
        self._trained = 0
        self._bytes: dict[str, int] = {}
        self._pending: tuple[int, float, int] | None = None  # the last commit, if it has no point of its own
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
                self._write(scalars, step, at)
            self._writer.flush()
            for file in before:
                file.unlink()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._trained += update.steps
        self._lr_step = update.lr_step

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        kind = transfer.kind
        self._bytes[kind] = self._bytes.get(kind, 0) + transfer.bytes

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.server != "global" or commit.kind != "update":
            return
        for share in commit.shares:
            self._staleness.add(share.hop_staleness)
            if share.hop_drift == share.hop_drift:
                self._drift.add(share.hop_drift)
        if self._real:
            loss = mean_loss(commit)
            if loss is not None:
                self._loss.add(loss)
        self._pending = (commit.local_steps, commit.time, commit.version)  # not the commit: it holds tensors
        if self._thinning.due(max(commit.local_steps / self._steps, commit.time / self._seconds)):
            self._point(*self._pending)
            self._pending = None

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        tag = f"loss/{evaluation.set}" + ("" if evaluation.of == "global" else f"/{evaluation.of}")
        with self._writing():
            self._write({tag: evaluation.loss}, evaluation.local_steps, evaluation.time)
            self._write({f"by_tokens/{tag}": evaluation.loss}, evaluation.tokens, evaluation.time)

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        if self._pending is not None:
            self._point(*self._pending)
        steps, now = summary.get("local_steps", 0), summary.get("simulated_seconds", 0.0)
        with self._writing():
            table = _table(("region", "workers", *SHARES), self._shares(summary.get("workers", [])))
            self._writer.add_text("time", table, steps, walltime=now)
            self._writer.close()

    def _open(self) -> None:
        with self._writing():
            self._writer = self._make_writer(str(self._folder), flush_secs=10)
            self._writer.add_text("config", _table(("key", "value"), _flat(self._experiment.config)), 0, walltime=0.0)
            self._writer.flush()

    def _point(self, steps: int, time: float, version: int) -> None:
        tokens = max(self._trained, steps) * self._tokens_per_step
        loss = self._loss.take()
        scalars = {
            "loss/train": loss,
            "commits/staleness": self._staleness.take(),
            "commits/drift": self._drift.take(),
            "commits/version": version,
            "workers/learning_rate_step": self._lr_step,
            "time/simulated_hours": time / 3600,
            **{f"bytes/{kind}": count for kind, count in self._bytes.items()},
            "bytes/total": sum(self._bytes.values()),
        }
        with self._writing():
            self._write(scalars, steps, time)
            self._write({"by_tokens/loss/train": loss, "by_tokens/time/simulated_hours": time / 3600}, tokens, time)

    def _write(self, scalars: dict[str, float], step: int, time: float) -> None:
        """All of them as one event: ten times cheaper than `add_scalar` for each."""
        if self._waiting is not None:
            self._waiting.append((scalars, step, time))
            return
        values = [self._value(tag=tag, simple_value=value) for tag, value in scalars.items() if math.isfinite(value)]
        if values:
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
