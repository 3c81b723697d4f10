"""Late pseudo-gradients count less: Poly, PolyThres and CGAD, each a factor of the age in front of another rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

from halos import Adam, MergeRule, Params, require

from .around import Around


@dataclass(frozen=True)
class Decayed(Around):
    """Δ ← factor(s) Δ, s versions old; then the inner rule."""

    def factor(self, age: int) -> float:
        raise NotImplementedError

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        decayed = self.factor(staleness) * delta
        return self.outer.step(params, decayed, state, base=base, staleness=staleness)


@dataclass(frozen=True)
class Poly(Decayed):
    """Δ ← Δ / (1+s)^power, then the inner rule (arXiv 2401.09135, of its baselines)."""

    power: float = 0.5  # ½: 1/√(1+s)

    def __post_init__(self) -> None:
        require(0.0 <= self.power <= 100.0, "power", self.power, "from 0 to 100")

    def factor(self, age: int) -> float:
        return float((1 + age) ** -self.power)


@dataclass(frozen=True)
class PolyThres(Poly):
    """Poly, and what is older than the threshold is not merged at all (likewise).

    Parameters, momentum and version stay as they are, and the update is dropped. Where a policy has no ages, none is.
    """

    threshold: int = 10  # versions; what is older is dropped

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.threshold >= 0, "threshold", self.threshold, "zero or a positive number of versions")

    def refuses(self, staleness: int) -> bool:
        return staleness > self.threshold or super().refuses(staleness)


@dataclass(frozen=True)
class CGAD(Decayed):
    """Δ ← g(s) e^(−α s) Δ, then Adam, whose moments both see the smaller Δ (after arXiv 2605.09126, its abstract).

    The abstract names age decay, a cosine gate and a cutoff; α, the cutoff and the gate's shape are our guesses:
    g(s) = ½ (1 + cos(π s / s_c)) below s_c, else 0. Without gate and cutoff it is Adam with decay. Where all ages are
    equal, the factor cancels in Adam up to its ε.
    """

    outer: MergeRule = field(default_factory=Adam)  # the rule inside
    alpha: float = 0.1  # α, per version (our guess)
    gate: Literal["cosine", "none"] = "cosine"  # g; `none`: 1 below the cutoff
    cutoff: Optional[float] = 10.0  # s_c, versions from which on Δ counts nothing (our guess); null: none, nor a gate

    def __post_init__(self) -> None:
        require(0.0 <= self.alpha < math.inf, "alpha", self.alpha, "zero or a positive, finite number")
        fits = self.cutoff is None or 0.0 < self.cutoff < math.inf
        require(fits, "cutoff", self.cutoff, "a positive number of versions, or null")

    def factor(self, age: int) -> float:
        if self.cutoff is None:
            return math.exp(-self.alpha * age)
        if age >= self.cutoff:
            return 0.0
        gate = 0.5 * (1 + math.cos(math.pi * age / self.cutoff)) if self.gate == "cosine" else 1.0
        return gate * math.exp(-self.alpha * age)
