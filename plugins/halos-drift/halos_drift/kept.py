"""What is kept of updates in flight: policies let go of an update's tensors long before it is merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch

from halos import GLOBAL, Commit, Update

MOST = 4  # updates per worker, the latest so many


@dataclass
class Vectors:
    """Of one update."""

    delta: torch.Tensor  # start − end, unweighted
    weights: Optional[torch.Tensor]  # √v̂ of its worker at its end
    merged: bool = False  # at some server


class Kept:
    """Vectors of updates until the global model has taken them in.

    Where a server sends several updates on as one difference, they are not looked at one by one again: then it is until
    any has.
    """

    def __init__(self, workers: int) -> None:
        self._most = MOST * workers
        self._one_by_one = True  # whether what was merged at another server comes to the global one by itself
        self._of: dict[int, Vectors] = {}

    def add(self, update: Update, weights: Optional[torch.Tensor]) -> None:
        """An update has arrived."""
        start, end = update.start.flat, update.params.flat
        gradient = None if update.gradient is None else update.gradient.flat
        if gradient is None and (start is None or end is None):
            return
        self._of[update.id] = Vectors(start - end if gradient is None else gradient, weights)
        while len(self._of) > self._most:
            del self._of[next(iter(self._of))]

    def get(self, id: int) -> Optional[Vectors]:
        """Return what is kept of an update."""
        return self._of.get(id)

    def commit(self, commit: Commit) -> None:
        """A commit is over; in a replay, too."""
        final = commit.server == GLOBAL
        if final and self._one_by_one and any(len(share.updates) > 1 for share in commit.shares):
            self._one_by_one = False
            self._of = {id: vectors for id, vectors in self._of.items() if not vectors.merged}
        for share in commit.shares:
            for update in share.updates:
                if final or not self._one_by_one:
                    self._of.pop(update.id, None)
                elif update.id in self._of:
                    self._of[update.id].merged = True

    def state(self) -> dict[int, dict[str, Any]]:
        """Return all of it, for a checkpoint."""
        return {id: vars(vectors) for id, vectors in self._of.items()}

    def restore(self, state: dict[int, dict[str, Any]]) -> None:
        """Go on from what `state` returned."""
        self._of = {id: Vectors(**saved) for id, saved in state.items()}
