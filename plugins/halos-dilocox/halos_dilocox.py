"""DiLoCoX: delayed outer gradients that travel as low-rank factors of four-bit integers (arXiv 2506.21263)."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos_codecs import Int4, LowRank
from halos_one_step_delay import OneStepDelay

from halos import Codec, Collective, Register, Simulation, hookimpl


@dataclass
class DiLoCoX(OneStepDelay):
    """One-step-delay DiLoCo whose pseudo-gradients are compressed with error feedback (arXiv 2506.21263).

    Worker m sends C(Δ_m + e_m), e_m ← Δ_m + e_m − C(Δ_m + e_m), while it trains the next round, and the
    mean of all takes an outer Nesterov step a round later. `codec` takes the place of the run's.
    """

    codec: Codec = field(default_factory=lambda: LowRank(rank=16, factors=Int4(), error_feedback=True))  # C

    def prepare(self, sim: Simulation) -> None:
        """The codec may have something to say of the model."""
        prepare = getattr(self.codec, "prepare", None)
        if prepare is not None:
            prepare(sim)

    def collective(self, sim: Simulation, index: int) -> Collective:
        return sim.collective(index, codec=self.codec)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("dilocox", DiLoCoX)
