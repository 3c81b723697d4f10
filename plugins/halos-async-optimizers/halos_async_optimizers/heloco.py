"""HeLoCo: each tensor's late pseudo-gradient is turned towards the outer momentum, or damped against it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Optional

import torch

from halos import Layout, Params, require

from .mla import MLA


@dataclass(frozen=True)
class HeLoCo:
    """G = correct(Δ, m) tensor by tensor; then MLA with ρ G, whose workers begin at θ − lr μ m (arXiv 2606.00271).

    c = cos(Δ, m), with the momentum before this arrival, and conf = ‖Δ‖ / (‖Δ‖ + κ ‖m‖ + ε):

        c ≥ c_ok       G = Δ
        c < 0          G = Δ − β c ‖Δ‖ m̂,  β = min(−k_s c conf, β_max): what fights the momentum is damped
        else           G = ‖Δ‖ unit((1−λ) Δ̂ + λ m̂),  λ = min(k_d (1−c) conf, 1): turned, of the same length

    Δ stays as it is where its norm or m's is below ε. (The mix's never is: at c ≥ 0 it is √½ or more.) As in the code
    of the first author's company.
    """

    lr: float = 0.7  # η
    momentum: float = 0.9  # μ, below 1
    rho: float = 1.0  # ρ, on every G; the code's comment recommends 1/√K for K workers at a time
    per: Literal["tensor", "model"] = "tensor"  # what is corrected by itself; `model`: of a fragment, all of it
    c_ok: float = 0.2  # the cosine from which on Δ is kept; −2: always
    k_s: float = 0.5  # of the damping
    k_d: float = 1.0  # of the turning
    kappa: float = 3.0  # κ
    beta_max: float = 0.5  # the most that is damped of what fights the momentum
    eps: float = 1.0e-8  # ε, a norm below which there is no direction

    def __post_init__(self) -> None:
        self._mla()
        require(0.0 < self.rho <= 1e30, "rho", self.rho, "a positive, finite number")
        require(-2.0 <= self.c_ok <= 1.0, "c_ok", self.c_ok, "in [-2, 1]")
        for key in ("k_s", "k_d", "kappa"):
            value = getattr(self, key)
            require(0.0 <= value < math.inf, key, value, "zero or a positive, finite number")
        require(0.0 <= self.beta_max <= 1.0, "beta_max", self.beta_max, "in [0, 1]")
        require(0.0 < self.eps < math.inf, "eps", self.eps, "a positive, finite number")

    def init(self, params: Params) -> Params:
        return self._mla().init(params)

    def start(self, params: Params, state: Params) -> Params:
        return self._mla().start(params, state)  # θ − η μ m

    def step(
        self, params: Params, delta: Params, state: Params, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Params]:
        corrected = Params.combine(lambda d, m: self._corrected(d, m, delta.layout), delta, state)  # ρ G
        return self._mla().step(params, corrected, state)

    def momentum_of(self, state: Params) -> Params:
        return state

    def _mla(self) -> MLA:
        return MLA(self.lr, self.momentum, ahead=True)

    def _corrected(self, delta: torch.Tensor, momentum: torch.Tensor, layout: Layout) -> torch.Tensor:
        if self.per == "model":
            return self._correct(delta, momentum)
        found = torch.empty_like(delta)
        for name in layout.shapes:
            piece = layout.slice_of(name)
            found[piece] = self._correct(delta[piece], momentum[piece])
        return found

    def _correct(self, delta: torch.Tensor, momentum: torch.Tensor) -> torch.Tensor:
        """One tensor's ρ G = x Δ + y m. All cases are worked out, one is chosen: no number leaves the tensors."""
        d, m = delta.double(), momentum.double()
        length, strength = (d @ d).sqrt(), (m @ m).sqrt()  # ‖Δ‖, ‖m‖
        ratio = length / strength
        c = (d @ m) / (length * strength)
        conf = length / (length + self.kappa * strength + self.eps)
        damped = -(-self.k_s * c * conf).clamp(max=self.beta_max) * c * ratio  # −β c ‖Δ‖ / ‖m‖, beside 1 of Δ
        share = (self.k_d * (1 - c) * conf).clamp(max=1.0)  # λ
        mix = ((1 - share) ** 2 + share**2 + 2 * share * (1 - share) * c).sqrt()  # ‖(1−λ) Δ̂ + λ m̂‖
        fights = c < 0
        x = torch.where(fights, torch.ones_like(c), (1 - share) / mix)
        y = torch.where(fights, damped, share / mix * ratio)
        kept = (length < self.eps) | (strength < self.eps) | (c >= self.c_ok)
        x, y = torch.where(kept, torch.ones_like(c), x), torch.where(kept, torch.zeros_like(c), y)
        return delta * (self.rho * x).to(delta.dtype) + momentum * (self.rho * y).to(delta.dtype)
