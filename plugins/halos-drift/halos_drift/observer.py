"""The observer: a line for every contribution merged anywhere, sums for the summary, curves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos import GLOBAL, Commit, Experiment, Lines, Merge, Share, Simulation, Update, hookimpl, require

from .ages import Age, Ages
from .books import Books
from .curves import Curves
from .distances import Distances, Merged
from .kept import Kept
from .measures import norm, ratio
from .probing import Probing, Step

logger = logging.getLogger("halos.drift")

FLUSH_SECONDS = 1.0  # of wall time, after which lines are written, with the next commit


@dataclass
class Drift:
    """How far, and how harmfully, models drift between a pseudo-gradient's base and its merge: `drift.jsonl`.

    A line for every contribution to any server, with each of its updates' whole way to the global model; TensorBoard
    curves; means and maxima by server, worker and region in the summary. Nothing else of a run changes by it.
    """

    probed: float = 0.02  # share of the jobs that are done again from the model they are merged into; 0: none
    probe_seed: int = 0  # of who is sampled, and of the other samples
    probe_samples: int = 8  # of the probe batch: the first validation samples; without any, drawn training samples
    shift: bool = False  # of sampled jobs, also the expected shift: one more job to be done again
    adam: bool = True  # Adam-weighted drift: keeps a vector per update in flight
    blocks: bool = False  # the same measures for every tensor by itself

    def __post_init__(self) -> None:
        require(0.0 <= self.probed <= 1.0, "probed", self.probed, "a share, 0 to 1")
        require(self.probe_samples >= 1, "probe_samples", self.probe_samples, "a positive number of samples")

    def prepare(self, sim: Simulation) -> None:
        """Say whose jobs are to be remembered."""
        self._sim = sim
        self._ages = Ages(sim.params.serial)
        self._kept = Kept(len(sim.workers))
        self._distances = Distances(self.blocks, self._kept)
        self._probing = Probing(self.probed, self.probe_seed, self.probe_samples, self.shift)
        self._able = self._probing.prepare(sim.probes, sim.params.layout)

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._books, self._curves = Books(), Curves()
        self._replaying = experiment.resumed_at is not None
        self._lines = Lines(experiment.folder / "drift.jsonl", resumed=self._replaying)
        self._flushed = time.monotonic()
        self._before: Optional[torch.Tensor] = None  # the global model, as last committed
        self._merge: Optional[Merge] = None  # until its commit, which follows at once, or anything else
        if experiment.real and not self._able:
            logger.warning("observers.extra.drift: this executor does no job again; no probes (inline does)")
        if not self._replaying:
            self._before = self._sim.params.flat

    @hookimpl
    def on_resume(self, time: float) -> None:
        self._replaying = False
        self._before = self._sim.params.flat
        self._lines.go_on()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._ages.update(update)
        self._merge = None
        if self._replaying or update.start.flat is None:
            return
        self._probing.update(update)
        moments = self._sim.probes.second_moments(update.worker) if self.adam and update.gradient is None else None
        self._kept.add(update, None if moments is None or moments.flat is None else moments.flat.sqrt_())

    @hookimpl
    def on_merge(self, merge: Merge) -> None:
        self._merge = merge
        if not self._replaying:
            self._distances.merge(merge)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if not self._replaying:
            self._commit(commit)
        self._merge = None
        self._ages.commit(commit)
        self._distances.step(commit)
        self._kept.commit(commit)

    @hookimpl
    def on_finish(self) -> None:
        self._lines.close()
        if self._experiment.config["observers"]["tensorboard"]:
            self._curves.write(self._experiment.folder)

    def summary(self) -> dict[str, Any]:
        """Means and maxima, for the summary."""
        cluster = self._experiment.cluster
        workers = [(worker.id, worker.region) for worker in cluster.workers]
        return {"probed": self._probing.count, **self._books.summary(workers, len(cluster.regions))}

    def state(self) -> dict[str, Any]:
        """What came out of tensors so far, for a checkpoint; all else a resumed run hears again."""
        return {
            "lines": self._lines.state(),
            "books": self._books.sums,
            "curves": self._curves.state(),
            "probing": self._probing.state(),
            "kept": self._kept.state(),
            "merges": [vars(merged) for merged in self._distances.merges],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        flat = self._sim.params.flat
        state = state if flat is None else moved(state, flat.device)
        self._lines.restore(state["lines"])
        self._books.sums = state["books"]
        self._curves.restore(state["curves"])
        self._probing.restore(state["probing"])
        self._kept.restore(state["kept"])
        self._distances.merges = [Merged(**each) for each in state["merges"]]

    def _commit(self, commit: Commit) -> None:
        measured, earlier = self._distances.of(commit), 0
        for index, (share, numbers) in enumerate(zip(commit.shares, measured)):
            line = self._lines.record(self._line(commit, index, share, numbers, earlier))
            self._books.add(line)
            self._curves.add(line)
            earlier += share.steps
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._lines.flush()
        if commit.server == GLOBAL:
            for share in commit.shares:
                for update in share.updates:
                    self._probing.waiting.pop(update.id, None)
            self._before = commit.params.flat
            if commit.shares:
                self._curves.point(commit.local_steps, commit.time)

    def _line(self, commit: Commit, index: int, share: Share, numbers: dict[str, Any], earlier: int) -> dict[str, Any]:
        age = self._ages.hop(commit, share, earlier)
        probe = None
        if len(share.updates) == 1:
            probe = self._probing.probe(share.updates[0].id, share.target.flat, self._step(commit, share))
        return {
            "time": commit.time,
            "server": commit.server,
            "version": commit.version,
            "index": index,
            "updates": [update.id for update in share.updates],
            "workers": [update.worker for update in share.updates],
            "regions": [update.region for update in share.updates],
            "local_steps": share.steps,
            **_age(age),
            "merges": age.merges,
            **numbers,
            "probe": probe,
            "end_to_end": self._ways(commit, share, earlier, probe),
        }

    def _step(self, commit: Commit, share: Share) -> Optional[Step]:
        """The outer step that the commit is of, if it is of this share's update alone."""
        merge, (update, *_) = self._merge, share.updates
        alone = len(commit.shares) == 1 and update.params.flat is not None and merge is not None
        if merge is None or not alone or merge.after.serial != commit.params.serial:
            return None
        return Step(merge, update.factor)

    def _ways(
        self, commit: Commit, share: Share, earlier: int, probe: Optional[dict[str, Optional[float]]]
    ) -> list[dict[str, Any]]:
        """Of each of a share's updates, its whole way; only the global server's have one."""
        found = []
        size = commit.params.size
        length = None
        for update, way in zip(share.updates, share.end_to_end):
            drift = way.drift if way.drift == way.drift else None
            if drift is not None and length is None and self._before is not None:
                length = norm(self._before)
            same = share.target.flat is self._before
            found.append(
                {
                    "update": update.id,
                    "worker": update.worker,
                    "region": update.region,
                    "local_steps": update.steps,
                    **_age(self._ages.way(commit, update, way, earlier)),
                    "drift": drift,
                    "drift_by_norm": ratio(drift, length),
                    "drift_by_delta": ratio(drift, update.delta_norm),
                    "drift_rms": None if drift is None else drift / size**0.5,
                    "gap": self._distances.gap(commit.server, drift, size),
                    "probe": probe if same and probe is not None else self._probing.probe(update.id, self._before),
                }
            )
            earlier += update.steps
        return found


def _age(age: Age) -> dict[str, Any]:
    return {
        "versions": age.versions,
        "seconds": age.seconds,
        "steps": age.steps,
        "tree_distance": age.tree_distance,
        "ancestor": age.ancestor,
    }


def moved(value: Any, device: torch.device) -> Any:
    """Return the same with all tensors on a device: they were saved on the one that the run had then."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(inner, device) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(inner, device) for inner in value)
    return value
