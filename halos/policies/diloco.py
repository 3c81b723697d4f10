"""DiLoCo: everybody trains, all differences are averaged, an outer optimizer steps (arXiv 2311.08105)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from halos.errors import Lost
from halos.hooks import Register, hookimpl
from halos.rules.merge import MergeRule, Nesterov
from halos.sim.clock import arrived, first_of
from halos.sim.simulation import Simulation
from halos.values.params import Params
from halos.values.records import Contribution, Update


@dataclass
class DiLoCo:
    """Synchronous local SGD with an outer optimizer (arXiv 2311.08105, Algorithm 1).

    A round lasts as long as its slowest worker's steps and one all-reduce. With unequal steps
    (`steps: {name: by_speed}`) it is upstream's DiLoCo + DynUpd. Under faults it goes on without the
    contributions that are lost: a worker whose message did not arrive goes on from its own parameters
    (section 3.2, "dropped communication"), one that crashed from the global ones.
    """

    outer: MergeRule = field(default_factory=Nesterov)

    async def run(self, sim: Simulation) -> None:
        theta, state = sim.params, self.outer.init(sim.params)
        unheard: dict[int, list[Update]] = {}  # by worker, of rounds whose message was lost
        for r in sim.rounds():  # for outer step t = 1 … T
            _drop_crashed(sim, unheard)
            starts = {worker: several[-1].params for worker, several in unheard.items()}
            # θ_i ← InnerOpt(θ), H steps each
            updates = await arrived(sim.train(w, starts.get(w.id, theta), round=r) for w in sim.workers)
            heard = _heard(sim, updates, unheard)
            workers = [sim.workers[several[-1].worker] for several in heard]
            if heard:
                try:  # Δ ← 1/k Σ (θ − θ_i)
                    delta = await sim.all_reduce((_delta(theta, several[-1]) for several in heard), workers=workers)
                except Lost:  # a link is down for ever: nobody hears of anybody
                    unheard.update((several[-1].worker, several) for several in heard)
                else:
                    contributions = [_contribution(theta, several) for several in heard]
                    theta, state = self.outer.step(theta, delta, state)  # θ ← OuterOpt(θ, Δ)
                    sim.commit(theta, contributions)
                    del contributions
            elif not updates:
                await first_of([sim.returned(worker) for worker in sim.workers])
            del updates, heard, starts  # or every worker's result would stay in memory during the next round


def _delta(theta: Params, update: Update) -> Params:
    """θ − θ_i, weighted; θ is where the update started, unless the message before it was lost."""
    return update.delta if update.start is theta else update.factor * (theta - update.params)


def _contribution(theta: Params, several: list[Update]) -> Union[Update, Contribution]:
    """What a worker did since it was last heard of, which all goes into θ."""
    return several[0] if len(several) == 1 else Contribution(several, theta, theta)


def _drop_crashed(sim: Simulation, unheard: dict[int, list[Update]]) -> None:
    """What only a worker had that has been down since is gone."""
    for worker in sorted(unheard):
        if not sim.up(sim.workers[worker], since=unheard[worker][-1].time):
            sim.drop(unheard.pop(worker))


def _heard(sim: Simulation, updates: list[Update], unheard: dict[int, list[Update]]) -> list[list[Update]]:
    """Of each worker whose message arrives, what it did since the last that did; the others are noted in `unheard`."""
    for crashed in sorted({*unheard} - {update.worker for update in updates}):  # its job was lost
        sim.drop(unheard.pop(crashed))
    heard = []
    for update in updates:
        worker, several = sim.workers[update.worker], [*unheard.pop(update.worker, []), update]
        if not sim.up(worker, since=update.time):
            sim.drop(several)
        elif sim.delivers(update):
            heard.append(several)
        else:
            unheard[update.worker] = several
    return heard


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("diloco", DiLoCo)
