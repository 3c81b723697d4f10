"""What can be chosen, and whether it fits cluster, steps and model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from halos import PATTERNS, Cluster, MergeRule, Nesterov, Simulation, cut, require


@dataclass
class Options:
    """The hyper-parameters of Decoupled DiLoCo (arXiv 2604.21428)."""

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))  # of every syncer
    quorum: Optional[int] = None  # K, contributions that a sync needs; null: as many as there are learners
    grace: float = 1.0  # of the time that is left until a contributor wants its answer: how much of it to wait for more
    averaging: str = "radial_directional"  # radial_directional | mean
    plain: list[str] = field(default_factory=lambda: ["embed"])  # tensors with this in their names: always the mean
    weights: str = "tokens"  # tokens: tokens · tokens / steps since the last merge | uniform
    fragments: int = 3  # P
    pattern: str = "balanced"  # balanced | strided | sequential: how bytes (or layers) make fragments
    tau: int = 1  # τ, local steps from sending to mixing
    alpha: float = 0.5  # α, weight of the local parameters in the mix
    server_region: int = 0  # of all syncers

    def __post_init__(self) -> None:
        quorum = self.quorum
        require(quorum is None or quorum >= 1, "quorum", quorum, "a positive number of learners, or null for all")
        require(0.0 <= self.grace < float("inf"), "grace", self.grace, "zero or a positive, finite number")
        known = ("radial_directional", "mean")
        require(self.averaging in known, "averaging", self.averaging, "one of " + ", ".join(known))
        require(self.weights in ("tokens", "uniform"), "weights", self.weights, "one of tokens, uniform")
        require(self.fragments >= 1, "fragments", self.fragments, "a positive number")
        require(self.pattern in PATTERNS, "pattern", self.pattern, "one of " + ", ".join(PATTERNS))
        require(self.tau >= 1, "tau", self.tau, "a positive number of local steps (nobody waits for an answer)")
        require(0.0 <= self.alpha <= 1.0, "alpha", self.alpha, "in [0, 1]")

    def check(self, cluster: Cluster) -> None:
        """A quorum that there are workers for, and syncers somewhere."""
        workers = len(cluster.workers)
        require(self.quorum is None or self.quorum <= workers, "quorum", self.quorum, f"at most the {workers} workers")
        cluster.check_region(self.server_region)

    def prepare(self, sim: Simulation) -> None:
        """What can be known before the first period: whether τ and the fragments fit steps and model."""
        self.check_period(min(sim.steps(worker) for worker in sim.workers))
        cut(sim.params.layout, self.fragments, self.pattern)

    def check_period(self, steps: int) -> None:
        """Whether τ fits a period of so many local steps, which may change while training."""
        limit = f"below the {steps} local steps of a period (steps): an answer is there before the next is sent"
        require(self.tau < steps, "tau", self.tau, limit)
