"""A rule around another: what is asked of a merge rule, answered by the one inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from halos import MergeRule, Nesterov, Params, Simulation, refused_by, start_of


@dataclass(frozen=True)
class Around:
    """Where workers begin, what is refused and what the momentum is are the inner rule's matter."""

    outer: MergeRule = field(default_factory=Nesterov)  # the rule inside, which merges what comes of Δ

    def init(self, params: Params) -> Any:
        return self.outer.init(params)

    def inner(self, state: Any) -> Any:
        """Return the inner rule's state: all there is, unless the outer one has something of its own."""
        return state

    def start(self, params: Params, state: Any) -> Params:
        return start_of(self.outer, params, self.inner(state))

    def momentum_of(self, state: Any) -> Optional[Params]:
        says = getattr(self.outer, "momentum_of", None)
        return None if says is None else says(self.inner(state))

    def refuses(self, staleness: int) -> bool:
        return refused_by(self.outer, staleness)

    def prepare(self, sim: Simulation) -> None:
        prepare = getattr(self.outer, "prepare", None)
        if prepare is not None:
            prepare(sim)

    def moved_on(self, params: Params, state: Any, base: Params) -> Params:
        """Return how far the model is from where it was when Δ began: what a worker would begin from now, less `base`.

        So an update that is not late has gone nowhere, also where workers begin ahead of the model.
        """
        return self.start(params, state) - base
