"""Byzantine workers: what they send is replaced, everything else of them is honest."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from halos import Cluster, ConfigError, FaultOptions, Params, generator, positive, require, seed_for

from .vectors import Vector, average, lengths

ATTACKS = ("sign_flip", "scaled", "random", "zero", "alie", "min_max")


@dataclass
class Byzantine(FaultOptions):
    """Bad workers, the same all the run: those named, or the first `count` of a permutation drawn by the seed.

    What they send, to collectives, pushes and `sim.send`, is replaced before it is encoded, by `attack`:
    `sign_flip` −λΔ; `scaled` λΔ; `random` a direction drawn anew each time, `sigma` times as long as the honest mean
    norm; `zero`. Two need all honest Δ, and know them: `alie` mean − z · sd in each coordinate (arXiv 1902.06156);
    `min_max` mean − γ · mean / ‖mean‖ with the largest γ that keeps within the honest diameter of every honest Δ (after
    Shejwalkar and Houmansadr, NDSS 2021). A push is sent alone: honest is then what its worker should have sent.
    """

    workers: list[int] = field(default_factory=list)  # by id; empty: `count` of them
    count: int = 0  # f, how many are drawn
    attack: str = "sign_flip"  # or `scaled`, `random`, `zero`, `alie`, `min_max`
    factor: float = 10.0  # λ, of `sign_flip` and `scaled`
    sigma: float = 1.0  # σ, of `random`: its norm in units of the honest ones'
    z: float = 1.5  # of `alie`, in standard deviations

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.count >= 0, "count", self.count, "zero or a positive number of workers")
        require(self.attack in ATTACKS, "attack", self.attack, f"one of {', '.join(ATTACKS)}")
        require(abs(self.factor) <= 1e30, "factor", self.factor, "a number that fp32 holds")
        require(self.sigma == 0.0 or positive(self.sigma), "sigma", self.sigma, "zero or a positive number")
        require(abs(self.z) <= 1e30, "z", self.z, "a number that fp32 holds")
        if self.workers and self.count:
            raise ConfigError("count", "given beside workers; bad workers are named or counted")

    def connect(self, cluster: Cluster, seed: int) -> None:
        there = len(cluster.workers)
        for index, worker in enumerate(self.workers):
            require(0 <= worker < there, f"workers[{index}]", worker, f"a worker, 0 to {there - 1}")
        require(self.count <= there, "count", self.count, f"at most {there}, all workers")
        drawn = generator(seed, "byzantine").permutation(there)[: self.count].tolist()
        self.bad = frozenset(self.workers or drawn)
        self._seed = seed

    def sends(self, payloads: Sequence[tuple[Hashable, Params]], number: int) -> Sequence[Params]:
        honest = [value for sender, value in payloads if sender not in self.bad] or [value for _, value in payloads]
        return [
            self._instead(sender, value, honest, number) if sender in self.bad else value for sender, value in payloads
        ]

    def _instead(self, sender: Hashable, value: Params, honest: Sequence[Params], number: int) -> Params:
        if self.attack in ("sign_flip", "scaled"):
            by = self.factor if self.attack == "scaled" else -self.factor
            return value if by == 1.0 else by * value
        if self.attack == "zero":
            return value.zeros()
        if self.attack == "alie":
            return Params.combine(lambda *flats: little(flats, self.z), *honest)
        if self.attack == "min_max":
            return Params.combine(lambda *flats: farthest(flats), *honest)
        draws = torch.Generator().manual_seed(seed_for(self._seed, f"byzantine {sender}", number))

        def random(*flats: Vector) -> Vector:
            drawn = torch.randn(len(flats[0]), generator=draws, dtype=flats[0].dtype).to(flats[0].device)
            norm = self.sigma * lengths(flats).mean().item()
            return drawn * norm / lengths([drawn])[0]

        return Params.combine(random, *honest)


def little(flats: Sequence[Vector], z: float) -> Vector:
    """Return mean − z · sd in each coordinate, the sd that of all there are."""
    several = torch.stack(list(flats))
    return average(flats) - z * several.std(dim=0, correction=0)


def farthest(flats: Sequence[Vector]) -> Vector:
    """Return mean − γ · mean / ‖mean‖ with the largest γ that keeps it within the diameter D of every one.

    With a = mean − Δ_i and u the direction: ‖a‖² − 2 γ a·u + γ² ≤ D² for all i.
    """
    mean = average(flats)
    u = mean / lengths([mean])[0].clamp(min=1e-30)
    diameter = max(float(lengths([one - other for other in flats]).max()) for one in flats)
    reach = []
    for flat in flats:
        a = (mean - flat).double()
        along = float(a @ u.double())
        reach.append(along + max(0.0, along**2 - float(a @ a) + diameter**2) ** 0.5)
    return mean - min(reach) * u
