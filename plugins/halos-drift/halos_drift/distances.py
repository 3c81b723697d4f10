"""The distances and angles of one commit's shares: what takes tensors, of contributions as they are merged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from halos import Commit, Merge, Params, Share

from .elements import Elements, Part
from .kept import Kept
from .measures import Together, TypicalStep, cosine, dot, norm, ratio, slices

PENDING = 16  # merges of which no commit has come yet, the latest so many
Numbers = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Merged:
    """What a merge rule did: tensors, which a checkpoint may hold."""

    before: int  # serial numbers of the parameters before and after
    after: int
    delta: torch.Tensor
    momentum: Optional[torch.Tensor]  # before; None: the rule has none
    serial: int = -1  # of the momentum's parameters: it may be that of many merges


@dataclass
class Distances:
    """Measures the shares of commits; `merges` and `typical` are what it remembers between them."""

    blocks: bool  # whether each tensor is measured by itself as well
    kept: Kept
    elements: Optional[Elements] = None  # where the gap is wanted element by element as well
    merges: list[Merged] = field(default_factory=list)  # those not committed yet
    typical: dict[Part, TypicalStep] = field(default_factory=dict)
    models: dict[str, tuple[int, float]] = field(default_factory=dict)  # by server, its model's serial number and norm
    lengths: dict[int, float] = field(default_factory=dict)  # of the latest momenta, by serial number

    def merge(self, merge: Merge) -> None:
        """A merge rule has made a step; its commit is to come."""
        if merge.delta.flat is None:
            return
        momentum, delta = merge.momentum, merge.delta.flat
        before, after = merge.params.serial, merge.after.serial
        if momentum is None:
            self.merges.append(Merged(before, after, delta, None))
        else:
            self.merges.append(Merged(before, after, delta, momentum.flat, momentum.serial))
        del self.merges[:-PENDING]

    def step(self, commit: Commit, merge: Optional[Merge]) -> None:
        """A commit has been looked at, and is over: its step counts from now on.

        `merge`: the step of a merge rule just before it. A commit that brought nothing in is a step if that made it
        (of a fragment that is not complete in others), and none if the server took over another model.
        """
        self.models[commit.server] = commit.params.serial, commit.norm
        stepped = [share.target for share in commit.shares]
        if merge is not None and not stepped:
            fits = merge.params.layout.fragment is not None or merge.after.serial == commit.params.serial
            stepped = [merge.params] if fits else []
        parts: dict[Part, int] = {}
        if stepped and math.isfinite(commit.step_norm):
            parts = {part_of(commit.server, each): each.size for each in (commit.params, stepped[0])}
        for of, size in parts.items():
            self.typical.setdefault(of, TypicalStep()).add(commit.step_norm, size)
        if self.elements is not None:
            self.elements.commit(commit, parts)

    def gap(self, server: str, drift: Optional[float], target: Params) -> Optional[float]:
        """Return how many typical steps of the server so far (of a fragment, of that) a distance to `target` is."""
        if drift is None:
            return None
        return self.typical.setdefault(part_of(server, target), TypicalStep()).gap(drift, target.size)

    def of(self, commit: Commit) -> list[Numbers]:
        """Return the numbers of each share; all None of one that is hollow."""
        merged = self._taken(commit)
        lengths = {serial: length for serial, length in self.models.values() if math.isfinite(length)}
        found, together, alike = [], Together(), len(commit.shares) > 1
        for share in commit.shares:
            numbers, delta = self._share(commit, share, merged, lengths)
            if alike and delta is not None and delta.numel() == commit.params.size:
                together.add(delta, numbers["delta_norm"])
            else:
                alike = False
            found.append(numbers)
        spread = together.spread() if alike else None
        one_start = len({share.base.serial for share in commit.shares}) == 1
        consensus = together.consensus() if alike and one_start else None
        return [{**numbers, "spread": spread, "consensus": consensus} for numbers in found]

    def _taken(self, commit: Commit) -> Optional[Merged]:
        """The merge that the commit is of: it made the parameters, or (of a fragment) began from the target."""
        targets = {share.target.serial for share in commit.shares}
        latest = self.merges[::-1]
        made = [merged for merged in latest if merged.after == commit.params.serial]
        for merged in (*made, *(merged for merged in latest if merged.before in targets)):
            self.merges.remove(merged)
            return merged
        return None

    def _share(
        self, commit: Commit, share: Share, merged: Optional[Merged], lengths: dict[int, float]
    ) -> tuple[Numbers, Optional[torch.Tensor]]:
        """A share's numbers, and its own Δ if that is known."""
        base, target, size = share.base.flat, share.target.flat, share.target.size
        drift = _known(share.hop_drift)
        own = self._own(share, alone=merged is not None and len(commit.shares) == 1)
        delta = own if own is not None or merged is None or merged.delta.numel() != size else merged.delta
        momentum = None if merged is None or merged.momentum is None else merged.momentum
        if momentum is not None and momentum.numel() != size:
            momentum = None
        d = None if base is None or target is None or base.numel() != size or not drift else target - base
        if target is not None and share.target.serial not in lengths:
            lengths[share.target.serial] = norm(target)
        delta_norm = self._noted_norm(share, size) if delta is own and len(share.updates) == 1 else None
        if delta_norm is None and delta is not None:
            delta_norm = norm(delta)
        of = None if delta_norm is None else "commit" if own is None and delta is not None else "contribution"
        weights = self._weights(share)
        numbers: Numbers = {
            "parameters": size,
            "drift": drift,
            "drift_by_norm": ratio(drift, lengths.get(share.target.serial)),
            "drift_by_delta": ratio(drift, delta_norm),
            "drift_rms": None if drift is None else drift / math.sqrt(size),
            "gap": self.gap(commit.server, drift, share.target),
            "delta_norm": delta_norm,
            "delta_of": of,
            **angles(d, delta, momentum, weights, drift, delta_norm, self._length(merged)),
        }
        if self.elements is not None:
            numbers["gap_elementwise"] = self.elements.gap(part_of(commit.server, share.target), drift, d)
        if self.blocks:
            numbers["blocks"] = {
                name: block(piece, d, target, delta, momentum, weights, drift)
                for name, piece in slices(share.target.layout.shapes)
            }
        return numbers, own

    def _length(self, merged: Optional[Merged]) -> Optional[float]:
        """‖momentum‖; of one that stays for many merges it is worked out once."""
        if merged is None or merged.momentum is None:
            return None
        length = self.lengths.pop(merged.serial, None)
        length = norm(merged.momentum) if length is None else length
        if merged.serial >= 0:
            self.lengths[merged.serial] = length
            while len(self.lengths) > PENDING:
                del self.lengths[next(iter(self.lengths))]
        return length

    def _weights(self, share: Share) -> Optional[torch.Tensor]:
        """√v̂ of the share's only update, of the parameters that it is applied to."""
        kept = self.kept.get(share.updates[0].id) if len(share.updates) == 1 else None
        return None if kept is None or kept.weights is None else part(kept.weights, share.target)

    def _own(self, share: Share, alone: bool) -> Optional[torch.Tensor]:
        """Δ of a share, where it is of the whole model; None if that which the commit merged is nearer to it.

        Of a fragment it is not the updates': they are counted when they are complete in all fragments, and what is
        merged is the fragment's difference since it was last sent. Nor is it if the share is `alone` in what a rule has
        merged and its updates have no tensors any more: a server in between may have made something else of them.
        """
        if share.target.layout.fragment is not None:
            return None
        own = own_delta(share)
        if own is not None or alone or len(share.updates) != 1:
            return own
        kept = self.kept.get(share.updates[0].id)
        return None if kept is None else kept.delta

    def _noted_norm(self, share: Share, size: int) -> Optional[float]:
        """‖Δ‖ of an update without its tensors, as it was noted when it arrived, where all of it is merged."""
        if len(share.updates) != 1 or share.updates[0].start.size != size:
            return None
        return _known(share.updates[0].delta_norm)


def part_of(server: str, params: Params) -> Part:
    """Return what of a server's model these are."""
    return server, tuple((piece.start, piece.stop) for piece in params.layout.fragment or ())


def own_delta(share: Share) -> Optional[torch.Tensor]:
    """Return Δ = start − end of a share, unweighted; None where the tensors are gone.

    Of several updates of one worker, one after the other, it is base − the last one's end.
    """
    if not share.updates or len({update.worker for update in share.updates}) > 1:
        return None
    last = share.updates[-1]
    if last.gradient is not None:
        return last.gradient.flat if len(share.updates) == 1 else None
    start = last.start.flat if len(share.updates) == 1 else share.base.flat
    return None if start is None or last.params.flat is None else start - last.params.flat


def part(whole: torch.Tensor, like: Params) -> Optional[torch.Tensor]:
    """Return of a whole model's vector what `like` is a part of; None if its place is not known."""
    if whole.numel() == like.size:
        return whole
    fragment = like.layout.fragment
    return None if fragment is None else torch.cat([whole[piece] for piece in fragment])


def angles(
    d: Optional[torch.Tensor],
    delta: Optional[torch.Tensor],
    momentum: Optional[torch.Tensor],
    weights: Optional[torch.Tensor],
    drift: Optional[float],
    delta_norm: Optional[float],
    momentum_norm: Optional[float],
) -> Numbers:
    """Return the cosines and the Adam-weighted drift, from d (None: zero, or unknown: so is `drift` then) and Δ."""
    against = None if d is None or delta is None else -dot(d, delta)
    along = None if delta is None or momentum is None else dot(delta, momentum)
    adam = None if weights is None or drift is None else 0.0 if d is None else math.sqrt(dot(weights, d, d))
    if drift is None or (d is None and drift != 0.0):
        adam = None
    adam_delta = None if adam is None or delta is None or weights is None else math.sqrt(dot(weights, delta, delta))
    return {
        "redundancy": cosine(against, drift, delta_norm),
        "alignment": None if along is None else cosine(along, delta_norm, momentum_norm),
        "adam_drift": _known(adam),
        "adam_drift_by_delta": ratio(adam, adam_delta),
    }


def block(
    piece: slice,
    d: Optional[torch.Tensor],
    target: Optional[torch.Tensor],
    delta: Optional[torch.Tensor],
    momentum: Optional[torch.Tensor],
    weights: Optional[torch.Tensor],
    drift: Optional[float],
) -> Numbers:
    """Return the same measures of one tensor, a slice of all vectors."""
    d, target, delta, momentum, weights = (
        None if each is None else each[piece] for each in (d, target, delta, momentum, weights)
    )
    length = 0.0 if drift == 0.0 else None if d is None else norm(d)
    delta_norm = None if delta is None else norm(delta)
    size = piece.stop - piece.start
    return {
        "drift": length,
        "drift_by_norm": None if target is None else ratio(length, norm(target)),
        "drift_by_delta": ratio(length, delta_norm),
        "drift_rms": None if length is None or size == 0 else length / math.sqrt(size),
        "delta_norm": delta_norm,
        **angles(d, delta, momentum, weights, length, delta_norm, None if momentum is None else norm(momentum)),
    }


def _known(value: Optional[float]) -> Optional[float]:
    return None if value is None or not math.isfinite(value) else value
