"""The gap element by element, which takes a vector per server: how far each parameter typically moves in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

import torch

from halos import Commit, Params, Update

from .measures import TypicalElements

Part = tuple[str, tuple[tuple[int, int], ...]]  # a server, and the pieces of its model that are a fragment; (): all


class Elements:
    """Hears of updates and commits, in replays too; a replay has no steps, and `restore` gives back what they were."""

    def __init__(self, initial: Params, outstanding: Callable[[int], bool]) -> None:
        """What every server begins from; whether an update is neither in the global model nor dropped."""
        self.restored = False
        self._initial = initial
        self._outstanding = outstanding
        self._models: dict[str, Params] = {}  # by server, its latest: the simulation keeps it as well
        self._typical: dict[Part, TypicalElements] = {}
        self._starts: dict[int, torch.Tensor] = {}  # of updates on their way to the global model

    def update(self, update: Update) -> None:
        """An update has arrived."""
        for id in [id for id in self._starts if not self._outstanding(id)]:  # dropped: nobody is told
            del self._starts[id]
        if update.start.flat is not None:
            self._starts[update.id] = update.start.flat

    def commit(self, commit: Commit, parts: Iterable[Part]) -> None:
        """A commit has been looked at, and is over; it was a step of these `parts`, or of none."""
        before = self._models.get(commit.server, self._initial).flat
        self._models[commit.server] = commit.params
        after = commit.params.flat
        if before is None or after is None:
            return
        step = None
        for part in parts:
            step = after - before if step is None else step
            pieces = [step[first:end] for first, end in part[1]]
            self._typical.setdefault(part, TypicalElements()).add(torch.cat(pieces) if pieces else step)

    def gap(self, part: Part, drift: Optional[float], d: Optional[torch.Tensor]) -> Optional[float]:
        """Return the mean of |d_j| / C_j; 0 for no drift, else None before any step, or where d is not known."""
        if drift is None or drift == 0.0:
            return drift
        typical = self._typical.get(part)
        return None if d is None or typical is None else typical.gap(d)

    def way(
        self, part: Part, drift: Optional[float], update: Update, target: Optional[torch.Tensor]
    ) -> Optional[float]:
        """Return that of an update's whole way to `target`."""
        start = self._starts.get(update.id) if drift else None
        return self.gap(part, drift, None if start is None or target is None else target - start)

    def state(self) -> dict[str, Any]:
        """Return all of it, for a checkpoint."""
        typical = [
            {"server": server, "pieces": pieces, "mean": of.mean, "steps": of.steps}
            for (server, pieces), of in self._typical.items()
        ]
        return {"typical": typical, "starts": dict(self._starts)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.restored = True
        self._starts = state["starts"]
        self._typical = {
            (each["server"], each["pieces"]): TypicalElements(each["mean"], each["steps"]) for each in state["typical"]
        }
