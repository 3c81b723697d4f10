"""The observer: a line for every contribution merged anywhere, sums for the summary, curves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos import GLOBAL, Commit, Experiment, Lines, Merge, Params, Share, Simulation, Update, hookimpl, require

from .ages import Age, Ages
from .books import Books
from .curves import Curves
from .distances import PENDING, Distances, Merged, own_delta, part_of
from .elements import Elements
from .kept import Kept
from .measures import norm, ratio
from .probing import Probing, Step, alone

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
    elementwise: bool = False  # also the gap by element: keeps a vector per server (of fragments, two), and update
    curvature: bool = False  # of sampled jobs, also the loss's curvature along the drift: two gradients more

    def __post_init__(self) -> None:
        require(0.0 <= self.probed <= 1.0, "probed", self.probed, "a share, 0 to 1")
        require(self.probe_samples >= 1, "probe_samples", self.probe_samples, "a positive number of samples")

    def prepare(self, sim: Simulation) -> None:
        """Say whose jobs are to be remembered."""
        self._sim = sim
        self._ages = Ages(sim.params.serial)
        self._kept = Kept(len(sim.workers))
        self._elements = Elements(sim.params, sim.probes.outstanding) if self.elementwise else None
        self._distances = Distances(self.blocks, self._kept, self._elements)
        self._probing = Probing(self.probed, self.probe_seed, self.probe_samples, self.shift, self.curvature)
        self._able = self._probing.prepare(sim.probes, sim.params.layout)

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._experiment = experiment
        wanted = {"gap_elementwise": self.elementwise, "curvature": self.curvature}
        self._books, self._curves = Books(tuple(name for name, on in wanted.items() if on)), Curves()
        self._replaying = experiment.resumed_at is not None
        self._lines = Lines(experiment.folder / "drift.jsonl", resumed=self._replaying)
        self._flushed = time.monotonic()
        self._missed, self._restored = 0, False  # contributions heard of in the replay; whether their lines are there
        self._before: Optional[Params] = None  # the global model, as last committed
        self._heard: list[Merge] = []  # until their commit, which follows at once, or anything else
        if experiment.real and not self._able:
            logger.warning("observers.extra.drift: this executor does no job again; no probes (inline does)")
        elif experiment.real and self.curvature and not self._sim.probes.differentiates:
            logger.warning(
                "observers.extra.drift.curvature: this executor gives no gradient of the probe batch, so it is null"
                " (inline does)"
            )
        if not self._replaying:
            self._before = self._sim.params

    @hookimpl
    def on_resume(self, time: float) -> None:
        self._replaying = False
        self._before = self._sim.params
        if self._missed:
            self._say_late(time)
        self._lines.go_on()

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._ages.update(update)
        self._heard.clear()
        if self._replaying or update.start.flat is None:
            return
        self._probing.update(update)
        moments = self._sim.probes.second_moments(update.worker) if self.adam and update.gradient is None else None
        self._kept.add(update, None if moments is None or moments.flat is None else moments.flat.sqrt_())
        if self._elements is not None and self._experiment.config["record"]["end_to_end_drift"]:
            self._elements.update(update)

    @hookimpl
    def on_merge(self, merge: Merge) -> None:
        self._heard = [*self._heard[1 - PENDING :], merge]
        if not self._replaying:
            self._distances.merge(merge)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if self._replaying:
            self._missed += len(commit.shares)
        else:
            self._commit(commit)
        self._ages.commit(commit)
        self._distances.step(commit, self._made(commit) or next(iter(self._heard[-1:]), None))
        self._heard.clear()
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
            **({} if self._elements is None else {"elements": self._elements.state()}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._restored = True
        flat = self._sim.params.flat
        state = state if flat is None else moved(state, flat.device)
        self._lines.restore(state["lines"])
        self._books.sums = state["books"]
        self._curves.restore(state["curves"])
        self._probing.restore(state["probing"])
        self._kept.restore(state["kept"])
        self._distances.merges = [Merged(**each) for each in state["merges"]]
        if self._elements is not None and "elements" in state:
            self._elements.restore(state["elements"])

    def _say_late(self, time: float) -> None:
        """Say what is not known where the run went on until `time` without this, or without typical steps by element.

        Ages and the gap follow from what a replay tells, so that they are as they would have been.
        """
        since = f"{time:.6g} simulated seconds"
        late = self._elements is not None and not self._elements.restored
        if not self._restored:
            steps = ", gap_elementwise knows no steps before" if late else ""
            logger.warning(
                f"observers.extra.drift: turned on at {since}: lines, curves and means begin there, without the"
                f" {self._missed} contributions merged before{steps}; of updates that had arrived and wait, what their"
                " vectors or inner state would tell is null"
            )
        elif late:
            logger.warning(
                f"observers.extra.drift.elementwise: turned on at {since}: gap_elementwise knows no steps before; of"
                " updates that had arrived and wait, it is null end to end"
            )

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
            self._before = commit.params
            if commit.shares:
                self._curves.point(commit.local_steps, commit.time)

    def _line(self, commit: Commit, index: int, share: Share, numbers: dict[str, Any], earlier: int) -> dict[str, Any]:
        age = self._ages.hop(commit, share, earlier)
        probe = None
        if len(share.updates) == 1 and share.target.layout.fragment is None:  # a job is never of a fragment
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

    def _made(self, commit: Commit) -> Optional[Merge]:
        """The step of a merge rule, just before, that made the commit's parameters."""
        return next((merge for merge in self._heard if merge.after.serial == commit.params.serial), None)

    def _step(self, commit: Commit, share: Share) -> Optional[Step]:
        """The outer step that the commit is of, if it is of this share's update alone."""
        merge, own = self._made(commit), own_delta(share)
        return None if merge is None or own is None or len(commit.shares) > 1 else alone(merge, own)

    def _ways(
        self, commit: Commit, share: Share, earlier: int, probe: Optional[dict[str, Optional[float]]]
    ) -> list[dict[str, Any]]:
        """Of each of a share's updates, its whole way; only the global server's have one."""
        found = []
        size = commit.params.size
        length, before = None, None if self._before is None else self._before.flat
        for update, way in zip(share.updates, share.end_to_end):
            drift = way.drift if way.drift == way.drift else None
            if drift is not None and length is None and before is not None:
                length = norm(before)
            # By its number: an executor may give a model's tensor another place.
            same = self._before is not None and share.target.serial == self._before.serial
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
                    "gap": self._distances.gap(commit.server, drift, commit.params),
                    "probe": probe if same and probe is not None else self._probing.probe(update.id, before),
                }
            )
            if self._elements is not None:
                part = part_of(commit.server, commit.params)
                found[-1]["gap_elementwise"] = self._elements.way(part, drift, update, before)
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
