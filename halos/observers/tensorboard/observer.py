"""TensorBoard curves whose clock is the simulated one: the RELATIVE axis shows simulated time.

TensorBoard's RELATIVE is the time since a curve's own first point, so every curve has one at simulated 0: counters
begin at 0 there; what has no value yet (a training loss, say) is not a number, which TensorBoard shows as a triangle
and leaves out of lines, ranges and smoothing. For the same reason a curve has fewer points than the 1,000 that
TensorBoard keeps of each: of more it drops any, the first too. They lie evenly over the budget. A point of what commits
bring is the mean over those since the last point, so that none is lost; evaluations are left out beyond so many.

Scalars are written against local steps, losses once more against tokens (`loss by tokens/…`) and once against
simulated milliseconds (`loss over simulated time/…`), so that the axis STEP shows all three beside each other. Groups
are opened in alphabetical order: no name may come before `loss`.

What the tabs beside the curves show is said in layout, hparams and timeline_picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

import yaml

from halos.errors import UserError
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import writing
from halos.observers.tensorboard import hparams, layout, timeline_picture
from halos.observers.tensorboard.thinning import Thinning
from halos.observers.tensorboard.timeline import Timeline
from halos.observers.tensorboard.traffic import Traffic
from halos.observers.tensorboard.utilization import SHARES, Utilization, by_region, utilization_curves
from halos.observers.tensorboard.window import Window
from halos.observers.units import duration
from halos.values.records import (
    GLOBAL,
    Commit,
    Evaluation,
    LostJob,
    Summary,
    Transfer,
    Update,
    mean_loss,
    unfinished,
)
from halos.world.faults import outages

COUNTERS = ("progress", "progress by tokens", "traffic")  # groups of what is 0 at simulated 0
FINE, COARSE = 200, 4  # sums (traffic, utilization) are smooth: after so many points every so manieth has them
BRACKETS = str.maketrans("()", "[]")  # Custom Scalars draws no curve whose name has round ones


class TensorBoard:
    """Writes `events.out.tfevents…`; a resumed run writes them all again, into a new file."""

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        # Seconds to import, so only in runs that want it.
        try:
            from PIL import Image
            from tensorboard.compat.proto.summary_pb2 import Summary as Scalars  # type: ignore[import-untyped]
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import custom_scalars
        except ImportError as error:
            raise UserError(
                f"observers.tensorboard: {error}; pip install tensorboard pillow, or set it to false"
            ) from error
        assert Image is not None, "for the timeline, at the end"
        self._summary, self._value, self._make_writer = Scalars, Scalars.Value, SummaryWriter
        self._charts: Callable[[Any], Any] = custom_scalars
        self._folder, self._real = experiment.folder, experiment.real
        self._tokens_per_step = experiment.tokens_per_step
        self._regions = [region.name for region in experiment.cluster.regions]
        self._thinning = Thinning()
        self._loss, self._staleness, self._drift = Window(), Window(), Window()
        self._hop_staleness, self._hop_drift = Window(), Window()
        self._trained = 0
        self._utilization = Utilization(experiment.cluster)
        self._timeline = Timeline(experiment.cluster)
        self._traffic = Traffic(self._regions)
        self._begun: set[str] = set()  # tags that have a point
        self._points = 0
        self._sums_at: tuple[int, float] | None = None  # the last point, if it has no sums
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
        self._utilization.add(update)
        self._timeline.on_update(update)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self._timeline.on_lost(lost)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self._traffic.add(transfer)
        self._timeline.on_transfer(transfer)

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
        cluster, steps, now = (
            self._experiment.cluster,
            summary.get("local_steps", 0),
            summary.get("simulated_seconds", 0.0),
        )
        workers = summary.get("workers", [])
        with self._writing():
            if self._sums_at is not None:
                self._write(self._sums(self._sums_at[1]), *self._sums_at)
            if workers and now > 0:  # with the jobs that did not arrive
                self._write(utilization_curves(cluster, [100 * worker["compute"] for worker in workers]), steps, now)
            table = _table(("region", "workers", *SHARES), by_region(cluster, workers))
            self._writer.add_text("use of simulated time", table, steps, walltime=now)
            table = _table(("link", "transfers", "traffic"), self._traffic.links())
            self._writer.add_text("traffic", table, steps, walltime=now)
            self._draw(summary, steps, now)
            self._add(hparams.end(summary.get("finished", True) is True, now), steps, now)
            self._writer.close()

    def _open(self) -> None:
        experiment = self._experiment
        with self._writing():
            self._writer = self._make_writer(str(self._folder), flush_secs=10)
            plain = json.loads(json.dumps(experiment.config, default=str))
            config = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
            self._writer.add_text("config", f"```yaml\n{config}```", 0, walltime=0.0)
            self._add(self._charts(layout.charts(self._real, self._traffic.by_link)), 0, 0.0)
            self._add(hparams.start(experiment), 0, 0.0)
            self._writer.flush()

    def _draw(self, summary: Summary, steps: int, now: float) -> None:
        """The workers' timeline, as an image."""
        if now <= 0:
            return
        experiment = self._experiment
        down = outages(experiment.faults, experiment.cluster.workers, now)
        bands, shares = (
            self._timeline.bands,
            self._timeline.shares(now, timeline_picture.COLUMNS, unfinished(summary), down),
        )
        title = f"{experiment.name}: {experiment.policy}, {duration(now)} of simulated time"
        picture, width, height = timeline_picture.png(title, experiment.cluster, bands, shares, now)
        image = self._summary.Image(encoded_image_string=picture, width=width, height=height, colorspace=3)
        self._add(self._summary(value=[self._value(tag="timeline of workers", image=image)]), steps, now)

    def _point(self, steps: int, time: float, version: int) -> None:
        tokens = max(self._trained, steps) * self._tokens_per_step
        loss, _ = self._loss.take()
        hours = time / 3600
        scalars: dict[str, float] = {
            "loss/train": loss,
            "progress/global model [versions]": version,
            "progress/learning rate [steps of its schedule]": self._lr_step,
            "progress/simulated time [hours]": hours,
        }
        self._points += 1
        if self._points <= FINE or self._points % COARSE == 0:
            scalars |= self._sums(time)
            self._sums_at = None
        else:
            self._sums_at = steps, time
        for name, window in (
            ("staleness/hop{} [versions]", self._hop_staleness),
            ("staleness/end to end{} [versions]", self._staleness),
            ("parameter drift/hop{} [L2 distance]", self._hop_drift),
            ("parameter drift/end to end{} [L2 distance]", self._drift),
        ):
            scalars[name.format("")], scalars[name.format(", maximum")] = window.take()
        with self._writing():
            self._write(scalars, steps, time)
            self._write(
                {"loss by tokens/train": loss, "progress by tokens/simulated time [hours]": hours}, tokens, time
            )
            self._write({"loss over simulated time/train": loss}, round(1000 * time), time)

    def _evaluation(self, name: str, evaluation: Evaluation) -> None:
        metrics = {
            f"metrics/{metric.replace('_', ' ')} on {name}": value
            for metric, value in evaluation.metrics.items()
            if value is not None
        }
        with self._writing():
            self._write({f"loss/{name}": evaluation.loss, **metrics}, evaluation.local_steps, evaluation.time)
            self._write({f"loss by tokens/{name}": evaluation.loss}, evaluation.tokens, evaluation.time)
            milliseconds = round(1000 * evaluation.time)
            self._write({f"loss over simulated time/{name}": evaluation.loss}, milliseconds, evaluation.time)

    def _share(self, record: Commit | Evaluation) -> float:
        return self._experiment.share(record.local_steps, self._trained, record.time)

    def _sums(self, time: float) -> dict[str, float]:
        return {**self._traffic.curves(), **self._utilization.curves(time)}

    def _write(self, scalars: dict[str, float], step: int, time: float) -> None:
        """Write those that are numbers; before a tag's first point, if that is later, one at simulated 0."""
        known = {tag.translate(BRACKETS): value for tag, value in scalars.items() if math.isfinite(value)}
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
        self._add(self._summary(value=values), step, time)

    def _add(self, summary: Any, step: int, time: float) -> None:
        self._writer._get_file_writer().add_summary(summary, step, time)  # type: ignore[no-untyped-call]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self._folder / "events.out.tfevents"):
            yield


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
