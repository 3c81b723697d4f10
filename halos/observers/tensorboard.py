"""TensorBoard curves whose clock is the simulated one: the RELATIVE axis shows simulated time.

TensorBoard's RELATIVE is the time since a curve's own first point, so every curve has one at simulated 0: counters
begin at 0 there; what has no value yet (a training loss, say) is not a number, which TensorBoard shows as a triangle
and leaves out of lines, ranges and smoothing. For the same reason a curve has fewer points than the 1,000 that
TensorBoard keeps of each: of more it drops any, the first too. They lie evenly over the budget. A point of what commits
bring is the mean over those since the last point, so that none is lost; evaluations are left out beyond so many.

Scalars are written against local steps, losses once more against tokens (`loss by tokens/…`) and once against
simulated milliseconds (`loss over simulated time/…`), so that the axis STEP shows all three beside each other. Groups
are opened in alphabetical order: no name may come before `loss`.

What the tabs beside the curves show is said in tensorboard_layout, tensorboard_hparams and timeline_picture.
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
from halos.observers import tensorboard_hparams, tensorboard_layout, timeline_picture
from halos.observers.experiment import Experiment
from halos.observers.files import writing
from halos.observers.timeline import Timeline
from halos.observers.units import duration, size
from halos.values.records import (
    ALL_REDUCE,
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

POINTS = 900  # per tag, about; with the first and the last fewer than TensorBoard keeps
SHARES = ("compute", "transfer", "idle", "down")
COUNTERS = ("progress", "progress by tokens", "traffic")  # groups of what is 0 at simulated 0
LINKED_REGIONS = 6  # with more regions, traffic has no curves by link: they would be too many
FINE, COARSE = 200, 4  # sums (traffic, utilization) are smooth: after so many points every so manieth has them
SHOWN_WORKERS = 16  # with more, utilization has curves of the busiest and the least busy alone
SHOWN_REGIONS = 16  # likewise
LINKS = 50  # in the table of traffic
BRACKETS = str.maketrans("()", "[]")  # Custom Scalars draws no curve whose name has round ones
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


class Window:
    """What was added since it was last taken: the mean, weighed, and the most; what is not a number does not count."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sum, self._count, self._most = 0.0, 0, -math.inf

    def add(self, value: float, weight: int = 1) -> None:
        if value == value:
            self._sum += weight * value
            self._count += weight
            if value > self._most:
                self._most = value

    def take(self) -> tuple[float, float]:
        """Mean and maximum; NaN if no number was added."""
        taken = (self._sum / self._count, self._most) if self._count else (math.nan, math.nan)
        self._clear()
        return taken


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
        self._steps, self._seconds = experiment.local_steps, experiment.seconds
        self._regions = [region.name for region in experiment.cluster.regions]
        self._thinning = Thinning()
        self._loss, self._staleness, self._drift = Window(), Window(), Window()
        self._hop_staleness, self._hop_drift = Window(), Window()
        self._trained = 0
        self._computed = [0.0] * len(experiment.cluster.workers)  # seconds
        self._timeline = Timeline(experiment.cluster)
        self._bytes: dict[tuple[Optional[int], Optional[int], str], int] = {}  # by link and kind of transfer
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
        start, end = update.compute
        self._computed[update.worker] += end - start
        self._timeline.on_update(update)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self._timeline.on_lost(lost)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        of_link = (transfer.src, transfer.dst, transfer.kind)
        self._bytes[of_link] = self._bytes.get(of_link, 0) + transfer.bytes
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
        steps, now = summary.get("local_steps", 0), summary.get("simulated_seconds", 0.0)
        workers = summary.get("workers", [])
        with self._writing():
            if self._sums_at is not None:
                self._write(self._sums(self._sums_at[1]), *self._sums_at)
            if workers and now > 0:  # with the jobs that did not arrive
                self._write(self._utilization([worker["compute"] * now for worker in workers], now), steps, now)
            table = _table(("region", "workers", *SHARES), self._shares(workers))
            self._writer.add_text("use of simulated time", table, steps, walltime=now)
            table = _table(("link", "transfers", "traffic"), self._links())
            self._writer.add_text("traffic", table, steps, walltime=now)
            self._draw(summary, steps, now)
            self._add(tensorboard_hparams.end(summary.get("finished", True) is True, now), steps, now)
            self._writer.close()

    def _open(self) -> None:
        experiment = self._experiment
        links = len(self._regions) <= LINKED_REGIONS
        with self._writing():
            self._writer = self._make_writer(str(self._folder), flush_secs=10)
            plain = json.loads(json.dumps(experiment.config, default=str))
            config = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
            self._writer.add_text("config", f"```yaml\n{config}```", 0, walltime=0.0)
            self._add(self._charts(tensorboard_layout.charts(self._real, links)), 0, 0.0)
            self._add(tensorboard_hparams.start(experiment), 0, 0.0)
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
        """Return the share of the budget, 0 to 1, by the global model's local steps, by those trained, or by time."""
        trained = self._trained / self._experiment.trained_steps
        return max(record.local_steps / self._steps, trained, record.time / self._seconds)

    def _sums(self, time: float) -> dict[str, float]:
        return {**self._traffic(), **self._utilization(self._computed, time)}

    def _traffic(self) -> dict[str, float]:
        """Megabytes so far, in all, by kind of transfer and, if regions are few, by link."""
        count = {"traffic/total [MB]": 0}
        for (src, dst, kind), nbytes in self._bytes.items():
            names = ["total", KINDS.get(kind, kind)]
            if src is not None and dst is not None and len(self._regions) <= LINKED_REGIONS:
                names.append(f"{self._regions[src]} → {self._regions[dst]}")
            for tag in [f"traffic/{name} [MB]" for name in names]:
                count[tag] = count.get(tag, 0) + nbytes
        return {tag: nbytes / 1e6 for tag, nbytes in count.items()}

    def _utilization(self, computed: list[float], time: float) -> dict[str, float]:
        """How much of all time so far was spent computing, in percent: in all, by region and by worker."""
        if time <= 0:
            return {}
        shares = [min(100.0, 100 * seconds / time) for seconds in computed]
        found = {"all workers": sum(shares) / len(shares)}
        regions = [region for region in self._experiment.cluster.regions if region.workers]
        for region in regions if len(regions) <= SHOWN_REGIONS else ():
            found[f"region {region.name}"] = sum(shares[worker.id] for worker in region.workers) / len(region.workers)
        if len(shares) <= SHOWN_WORKERS:
            for worker in self._experiment.cluster.workers:
                found[f"worker {worker.id} in {self._regions[worker.region]}"] = shares[worker.id]
        else:
            found |= {"busiest worker": max(shares), "least busy worker": min(shares)}
        return {f"utilization/{name} [%]": share for name, share in found.items()}

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

    def _links(self) -> Iterator[tuple[str, ...]]:
        """What went over each link, the most first."""
        links: dict[str, dict[str, int]] = {}
        for (src, dst, kind), nbytes in self._bytes.items():
            name = "all of a collective's"
            if src is not None and dst is not None:
                name = f"{self._regions[src]} → {self._regions[dst]}"
            kinds = links.setdefault(name, {})
            kinds[KINDS.get(kind, kind)] = kinds.get(KINDS.get(kind, kind), 0) + nbytes
        several = sorted(links.items(), key=lambda link: -sum(link[1].values()))
        for name, kinds in several[:LINKS]:
            yield name, ", ".join(sorted(kinds)), size(sum(kinds.values()))
        if rest := several[LINKS:]:
            yield f"{len(rest)} more", "", size(sum(sum(kinds.values()) for _, kinds in rest))

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


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
