"""The policy as it is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from halos import Simulation, under

from .decoupled import Decoupled
from .options import Options


@dataclass
class DecoupledDiLoCo(Options):
    """Learners train on without waiting; each fragment's syncer merges what has arrived (arXiv 2604.21428).

    A learner counts its own local steps, in periods of H (`steps:`). In each it sends every fragment once,
    Δ_{m,p} = Θ_p − θ_{m,p} against the Θ_p it last received, unless an answer to the one before is outstanding. The
    syncer of p waits for K contributions, then for its grace window, and merges: Θ_p ← Outer_p(Θ_p, Δ̄_p). Those who
    contributed get Θ_p, and mix it τ steps after they sent, or at their next stop if it comes later:
    θ_{m,p} ← α θ_{m,p} + (1 − α) Θ_p. Whoever has crashed begins anew from Θ. README.md says what of this is ours.
    """

    weighs: ClassVar[bool] = False  # but as its own `weights` says, of all that is in a contribution

    async def run(self, sim: Simulation) -> None:
        with under("policy"):
            self._run = Decoupled(self, sim)
        for worker in sim.workers:
            sim.spawn(self._run.work(worker))

    def report(self) -> dict[str, Optional[float]]:
        """How many contributions a sync had on average, and how many answers came after the step they were for."""
        syncs = sum(syncer.merges for syncer in self._run.syncers)
        merged = sum(syncer.merged for syncer in self._run.syncers)
        return {"contributions_per_sync": merged / syncs if syncs else None, "late_answers": self._run.late}
