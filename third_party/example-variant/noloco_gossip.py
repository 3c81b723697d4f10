"""Gossip in place of all-reduce: every worker steps together with one random other (after NoLoCo, arXiv 2506.10911)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from halos import (
    FP32,
    Contribution,
    Event,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    Worker,
    all_of,
    generator,
    hookimpl,
    require,
)


@dataclass
class NoLoCoGossip:
    """Pairs of workers, drawn anew every round, average their differences and pull their replicas together.

    Worker i has a replica φ_i and a velocity v_i. It ends a round with Δ_i, and with its partner j of that round
    v_i ← α v_i + β (Δ_i + Δ_j) / 2 + γ (φ_i − φ_j) / 2, φ_i ← φ_i − v_i. The odd one out steps with its own Δ_i
    alone. Replicas are sent while the workers train, in fp32; differences follow, with the configured codec. A pair
    waits for nobody else. The global model is the mean of the replicas after a round, known to no worker.
    """

    lr: float = 0.7  # β
    momentum: float = 0.5  # α
    pull: float = 0.6  # γ, how strongly the partners' replicas attract each other
    seed: int = 0  # of who meets whom

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", self.lr, "a positive, finite number")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(0 <= self.pull < math.inf, "pull", self.pull, "zero or a positive, finite number")
        require(self.seed >= 0, "seed", self.seed, "zero or a positive number")

    async def run(self, sim: Simulation) -> None:
        self._rounds: dict[int, Meetings] = {}  # that somebody has begun and not everybody has ended
        self._exchanges = self._crossings = 0
        await all_of([sim.spawn(self._work(sim, worker)) for worker in sim.workers])

    def report(self) -> dict[str, int]:
        return {"exchanges": self._exchanges, "exchanges_between_regions": self._crossings}

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        phi, velocity = sim.params, sim.params.zeros()
        for r in sim.rounds():
            meetings = self._meetings(sim, r)
            partner = meetings.partners.get(worker.id)
            if partner is None:
                update = await sim.train(worker, phi, round=r.among(worker))
                step = self.lr * update.delta
            else:
                here, there = worker.region, partner.region
                sent = sim.send(phi, here, there, FP32)  # a round's start is known before its work is done
                meetings.replicas[worker.id].succeed(sent)
                update = await sim.train(worker, phi, round=r.among(worker, partner))
                await sent  # one message at a time on the way out
                meetings.deltas[worker.id].succeed(sim.send(update.delta, here, there, sender=worker.id))
                theirs = await (await meetings.replicas[partner.id])
                delta = (update.delta + await (await meetings.deltas[partner.id])) / 2
                step = self.lr * delta + self.pull * (phi - theirs) / 2
                self._count(worker, partner)
            velocity = self.momentum * velocity + step  # v ← α v + β Δ̄ + γ (φ − φ̄)
            start, phi = phi, phi - velocity  # φ ← φ − v
            self._end(sim, r, update, start, phi)

    def _meetings(self, sim: Simulation, r: Round) -> Meetings:
        if r.index not in self._rounds:
            self._rounds[r.index] = Meetings(sim, matching(self.seed, r.index, len(sim.workers)))
        return self._rounds[r.index]

    def _count(self, worker: Worker, partner: Worker) -> None:
        if worker.id < partner.id:
            self._exchanges += 1
            self._crossings += worker.region != partner.region

    def _end(self, sim: Simulation, r: Round, update: Update, start: Params, phi: Params) -> None:
        """A worker has ended round r; the last one to do so makes the mean of the replicas the global model."""
        ended = self._rounds[r.index].ended
        ended[update.worker] = update.receipt(), start, phi
        if len(ended) == len(sim.workers):
            del self._rounds[r.index]
            in_order = [ended[worker.id] for worker in sim.workers]
            first, *others = [replica for _, _, replica in in_order]
            target = sim.params  # the mean after the round before: a share's drift is how far its replica was off
            shares = [Contribution([update], start, target, from_version=r.index) for update, start, _ in in_order]
            sim.commit(sum(others, start=first) / len(in_order), shares)


class Meetings:
    """Who meets whom in one round, and what they have on the way to each other, by the sender's id."""

    def __init__(self, sim: Simulation, partners: dict[int, int]) -> None:
        self.partners = {worker: sim.workers[partner] for worker, partner in partners.items()}
        # Either side may be the first to ask: an event that happens, with the transfer, when it is sent.
        self.replicas: defaultdict[int, Event[Event[Params]]] = defaultdict(lambda: Event(sim.clock))
        self.deltas: defaultdict[int, Event[Event[Params]]] = defaultdict(lambda: Event(sim.clock))
        self.ended: dict[int, tuple[Update, Params, Params]] = {}  # update, replica before, replica after


def matching(seed: int, index: int, workers: int) -> dict[int, int]:
    """Each worker's partner in a round, both ways; of an odd number one has none."""
    order = generator(seed, "matching", index).permutation(workers).tolist()
    pairs = list(zip(order[::2], order[1::2]))
    return {**dict(pairs), **{second: first for first, second in pairs}}


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("noloco_gossip", NoLoCoGossip)
