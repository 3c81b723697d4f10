"""Gap-Aware: a pseudo-gradient counts less where the model has moved on since, in units of its usual steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

import torch
from msgspec import Struct

from halos import Params

from .around import Around

DECAY = 0.999  # of the mean square of the server's steps
EPS = 1e-8  # of a usual step


class GapState(Struct, frozen=True):
    """The inner rule's state, the mean square of the server's steps, and steps so far."""

    inner: Any
    square: Params
    count: int = 0


@dataclass(frozen=True)
class GapAware(Around):
    """Δ ← Δ / (1 + |θ − θ_b| / C), then the inner rule (arXiv 1909.10802; θ_b: where Δ began).

    C = √(e / (1 − .999^t)) + 1e-8, a usual step, where e ← .999 e + .001 (θ_before − θ_after)² after each of t steps so
    far. A later code of the authors' group takes the direction of a movement and the largest learning rate so far; here
    it is the movement itself. Only what is late counts less, and nothing before the first step.
    """

    # `element`: each by itself; `model`: |·| and C are root mean squares over all (of a fragment, over that), a form
    # remembered and not looked up.
    per: Literal["element", "model"] = "element"

    def init(self, params: Params) -> GapState:
        return GapState(self.outer.init(params), params.zeros())

    def inner(self, state: GapState) -> Any:
        return state.inner

    def step(
        self, params: Params, delta: Params, state: GapState, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, GapState]:
        if base is not None and staleness > 0 and state.count > 0:
            unbiased = 1 - DECAY**state.count
            gap = self.moved_on(params, state, base)  # θ − θ_b
            delta = Params.combine(lambda d, g, e: d / (1 + self._steps(g, e / unbiased)), delta, gap, state.square)
        moved, inner = self.outer.step(params, delta, state.inner, base=base, staleness=staleness)
        square = Params.combine(
            lambda e, before, after: torch.lerp(e, (before - after).square(), 1 - DECAY), state.square, params, moved
        )
        return moved, GapState(inner, square, state.count + 1)

    def _steps(self, gap: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
        """How many usual steps the gap is: of each element, or one number."""
        if self.per == "element":
            return gap.abs() / (square.sqrt() + EPS)
        return gap.square().mean().sqrt() / (square.mean().sqrt() + EPS)
