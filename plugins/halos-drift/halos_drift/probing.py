"""What a sampled job would have come to elsewhere: its staleness error, noise floor, and the drift of the function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from halos import Job, Layout, Merge, Params, Probes, Update, seed_for

from .measures import cosine, divergences, dot, norm, ratio

ROUNDING = 1e-4  # relative, of what a policy has multiplied
NONE: dict[str, Optional[float]] = dict.fromkeys(
    (
        *("staleness_error", "staleness_cosine", "noise_floor", "shift"),
        *("stepped_loss", "stepped_loss_fresh", "kl", "js", "loss_change"),
    )
)


@dataclass
class Sampled:
    """A job, kept from its end until the global model has taken it in: what it takes to do it again."""

    job: tuple[Any, ...]  # without its start
    start: torch.Tensor
    delta: torch.Tensor  # start − end
    inner: dict[str, Any]
    noise: Optional[torch.Tensor] = None  # Δ from the start on other samples, once it is known
    noisy: bool = False  # whether it has been asked for


@dataclass(frozen=True)
class Step:
    """An outer step that one job alone has brought about."""

    merge: Merge
    factor: float  # of its Δ in what was merged

    @property
    def after(self) -> Params:
        """The next parameters."""
        return self.merge.after

    def again(self, change: torch.Tensor) -> Params:
        """Return the next parameters by the same step along another Δ, so much more; nobody is told of it."""
        return self.merge.again(self.merge.delta.map(lambda merged: torch.add(merged, change, alpha=self.factor)))


def alone(merge: Merge, own: torch.Tensor) -> Optional[Step]:
    """Return the step if what was merged is a multiple of one job's `own` Δ, and so that alone; else None."""
    merged = merge.delta.flat
    if merged is None or merged.shape != own.shape:
        return None
    factor = ratio(dot(merged, own), dot(own, own))
    if factor is None or not norm(merged - factor * own) <= ROUNDING * norm(merged):
        return None
    return Step(merge, factor)


@dataclass
class Probing:
    """Samples jobs by a hash of their number, and does them again."""

    share: float  # of all jobs
    seed: int
    samples: int  # of the probe batch
    shift: bool  # whether to do the fourth: other samples, from the target
    curvature: bool = False  # whether to take the probe batch's gradients
    waiting: dict[int, Sampled] = field(default_factory=dict)  # by update
    count: int = 0  # of jobs that were done again

    def prepare(self, probes: Probes, layout: Layout) -> bool:
        """Tell the executor of whom to remember how they began; whether it can."""
        self._probes, self._layout = probes, layout
        self._recall = probes.remember(self.wanted) if self.share else None
        return self.share == 0.0 or self._recall is not None

    def wanted(self, job: int) -> bool:
        """Whether a job is sampled: by (seed, its number), so known when it is dispatched."""
        return seed_for(self.seed, "sampled job", job) < self.share * 2.0**63

    def update(self, update: Update) -> None:
        """An update has arrived; keep it if it was sampled."""
        if self._recall is None or not self.wanted(update.id):
            return
        inner = self._recall(update)
        start, end = update.start.flat, update.params.flat
        if inner is None or start is None or end is None or update.gradient is not None:
            return
        job = self._probes.job(update)
        if not self._probes.lossless:  # what its server sees is not where it ended
            ended = self._probes.again(job, inner)
            if ended is None or ended.flat is None:
                return
            end = ended.flat
        for id in [id for id in self.waiting if not self._probes.outstanding(id)]:  # dropped, which nobody is told of
            del self.waiting[id]
        self.waiting[update.id] = Sampled(_startless(job), start, start - end, inner)

    def probe(
        self, id: int, target: Optional[torch.Tensor], step: Optional[Step] = None
    ) -> Optional[dict[str, Optional[float]]]:
        """Return the numbers of a sampled job that is merged into the whole model `target`; None: it is not sampled.

        `step`, where the outer step is of this job alone, is to take it again with Δ* in place of Δ.
        """
        sampled = self.waiting.get(id)
        if sampled is None or target is None or target.numel() != sampled.start.numel():
            return None
        delta, fresh = sampled.delta, self._delta(sampled, target)
        if not sampled.noisy:
            sampled.noise, sampled.noisy = self._delta(sampled, sampled.start, other=True), True
            self.count += 1
        noise, found = sampled.noise, dict(NONE)
        length = norm(delta)
        if fresh is not None:
            error, fresh_norm = delta - fresh, norm(fresh)
            found["staleness_error"] = ratio(norm(error), fresh_norm)
            found["staleness_cosine"] = cosine(dot(delta, fresh), length, fresh_norm)
            if self.shift and noise is not None:
                other = self._delta(sampled, target, other=True)
                found["shift"] = None if other is None else dot(error, noise - other)
            if step is not None:
                losses = self._losses([step.after, step.again(fresh - delta)])
                found["stepped_loss"], found["stepped_loss_fresh"] = losses
        if noise is not None:
            found["noise_floor"] = ratio(norm(delta - noise), length)
        found |= self._function(sampled.start, target)
        return {**found, "curvature": self._curvature(sampled.start, target)} if self.curvature else found

    def _delta(self, sampled: Sampled, start: torch.Tensor, other: bool = False) -> Optional[torch.Tensor]:
        """Δ of the job from `start`, on its own samples or others; None: there are not so many, or it diverges."""
        job: Optional[Job] = started(sampled.job, Params(self._layout, start))
        if other and job is not None:
            job = self._probes.elsewhere(job, self.seed)
        ended = None if job is None else self._probes.again(job, sampled.inner)
        return None if ended is None or ended.flat is None else start - ended.flat

    def _losses(self, several: list[Params]) -> list[Optional[float]]:
        """Losses on the probe batch."""
        sums, samples = [0.0] * len(several), 0
        for batch in self._probes.predictions(several, self.samples, self.seed):
            samples += batch[0].samples
            sums = [total + each.loss * each.samples for total, each in zip(sums, batch)]
        return [total / samples if samples else None for total in sums]

    def _function(self, base: torch.Tensor, target: torch.Tensor) -> dict[str, Optional[float]]:
        """How much the function has changed on the probe batch: per prediction, and in the loss."""
        several = [Params(self._layout, base), Params(self._layout, target)]
        kl = js = change = 0.0
        samples = positions = 0
        for before, after in self._probes.predictions(several, self.samples, self.seed):
            samples += before.samples
            change += (after.loss - before.loss) * before.samples
            if before.logits is not None and after.logits is not None:
                sums = divergences(before.logits, after.logits)
                kl, js, positions = kl + sums[0], js + sums[1], positions + len(before.logits)
        return {
            "kl": kl / positions if positions else None,
            "js": js / positions if positions else None,
            "loss_change": change / samples if samples else None,
        }

    def _curvature(self, base: torch.Tensor, target: torch.Tensor) -> Optional[float]:
        """dᵀ(∇L(t) − ∇L(b)) on the probe batch, d = t − b; None if the executor gives no gradients of it."""
        ends = [self._probes.gradient(Params(self._layout, flat), self.samples, self.seed) for flat in (base, target)]
        before, after = [None if each is None else each.flat for each in ends]
        return None if before is None or after is None else dot(target - base, after - before)

    def state(self) -> dict[str, Any]:
        """Return those that wait, for a checkpoint."""
        return {"waiting": [vars(sampled) for sampled in self.waiting.values()], "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.count = state["count"]
        several = [Sampled(**saved) for saved in state["waiting"]]
        self.waiting = {sampled.job[0]: sampled for sampled in several}


def _startless(job: Job) -> tuple[Any, ...]:
    return (*job[:2], *job[3:])


def started(job: tuple[Any, ...], start: Params) -> Job:
    """Return a job from its numbers and a start."""
    return Job(*job[:2], start, *job[2:])
