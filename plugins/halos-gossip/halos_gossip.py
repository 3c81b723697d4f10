"""Gossip: workers with models of their own, which exchange with a few others after each round (arXiv 2506.10911)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Optional

from halos import (
    FP32,
    Codec,
    Contribution,
    Event,
    Lost,
    Params,
    Register,
    Round,
    Simulation,
    Update,
    Worker,
    generator,
    hookimpl,
    mean,
    own_seed,
    require,
)

RULES = ("noloco", "gasloc")
GRAPHS = ("pairs", "two_pairs", "ring", "complete")
Messages = tuple[tuple[Params, Optional[Codec]], ...]  # what a worker sends to each neighbour, and how


@dataclass
class Gossip:
    """No global model: worker i trains from a φ_i of its own, and waits only for neighbours (NoLoCo, arXiv 2506.10911).

    It trains H steps, from φ_i to φ_i − Δ_i, and exchanges with its neighbours by one of two rules.

    `noloco` (arXiv 2506.10911): a group g, a worker and its neighbours, averages and pulls its members together,
    m_i ← β m_i − lr · mean_g Δ + pull · (mean_g φ − φ_i), φ_i ← φ_i + m_i. `gasloc` (arXiv 2606.11081, by a summary):
    w_i ← φ_i − lr · Δ_i, φ_i ← w_i − α Σ_j λ_ij (w_i − w_j) + β (w_i − w_i of the round before), λ_ij = 1 over the
    larger number of neighbours and one. The global model is the mean of all φ after a round, which no worker has.
    """

    rule: str = "noloco"  # noloco | gasloc
    # Who are neighbours: pairs, drawn anew each round (an odd one is alone) | two_pairs, two draws | ring | complete.
    graph: str = "pairs"
    lr: float = 0.7  # of a worker's difference, or its group's mean
    momentum: float = 0.5  # β
    pull: Optional[float] = None  # noloco: how strongly the members of a group attract each other; null: lr
    mixing: float = 1.0  # gasloc: α; with 1 a pair averages
    seed: Optional[int] = None  # of who meets whom; null: the run's

    def __post_init__(self) -> None:
        require(self.rule in RULES, "rule", self.rule, "one of " + ", ".join(RULES))
        require(self.graph in GRAPHS, "graph", self.graph, "one of " + ", ".join(GRAPHS))
        grouped = self.rule == "gasloc" or self.graph in ("pairs", "complete")
        require(grouped, "graph", self.graph, "made of groups, as noloco needs them: pairs or complete")
        require(0.0 < self.lr <= 1e30, "lr", self.lr, "a positive, finite number")
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")
        require(self.pull is None or 0.0 <= self.pull <= 1e30, "pull", self.pull, "zero or positive, or null for lr")
        require(0.0 <= self.mixing <= 1e30, "mixing", self.mixing, "zero or a positive, finite number")
        require(self.seed is None or self.seed >= 0, "seed", self.seed, "zero or a positive number, or null")

    def prepare(self, sim: Simulation) -> None:
        self._meetings: dict[int, Meeting] = {}  # of rounds that are not over
        self._begun = -1  # the latest round that somebody has begun
        self._phi = {worker.id: sim.params for worker in sim.workers}
        self._down: set[int] = set()  # whose job was lost, until they are back
        self._letters = 0
        self._replicas = [sim.params]  # of all workers, after the latest round that is over

    async def run(self, sim: Simulation) -> None:
        for worker in sim.workers:
            sim.spawn(self._work(sim, worker))

    def report(self) -> dict[str, Any]:
        """Letters that arrived; of workers' distances from their mean after the last round, mean square and mean."""
        center = mean(self._replicas)
        off = [replica.distance(center) for replica in self._replicas]
        known = not any(map(math.isnan, off))
        return {
            "letters": self._letters,
            "consensus": sum(each**2 for each in off) / len(off) if known else None,
            "mean_distance": sum(off) / len(off) if known else None,
        }

    async def _work(self, sim: Simulation, worker: Worker) -> None:
        state = sim.params if self.rule == "gasloc" else sim.params.zeros()  # w of the round before, or m
        for r in sim.rounds():
            meeting = self._meeting(sim, r)
            if meeting is None or worker.id in meeting.missing:  # begun while it was down
                continue
            phi = self._phi[worker.id]
            try:
                update = await sim.train(worker, phi, round=r)  # H steps from φ_i
            except Lost:
                self._leave(sim, worker, r)
                await sim.faults.returned(worker)
                self._down.discard(worker.id)
                continue
            delta = update.delta
            if self.rule == "noloco":
                heard = await self._exchange(sim, worker, meeting, ((phi, FP32), (delta, None)))
                group = [each for _, each in sorted({**heard, worker.id: [phi, delta]}.items())]
                toward, step = mean(phi for phi, _ in group), mean(delta for _, delta in group)
                pull = self.lr if self.pull is None else self.pull
                state = self.momentum * state - self.lr * step + pull * (toward - phi)  # m ← β m − lr mean Δ + pull (…)
                new = phi + state  # φ ← φ + m
            else:
                w = phi - self.lr * delta
                heard = await self._exchange(sim, worker, meeting, ((w, FP32),))
                new = w + self.momentum * (w - state)
                for other, (theirs,) in sorted(heard.items()):
                    new = new - self.mixing * meeting.weight(worker.id, other) * (w - theirs)  # α λ_ij (w_i − w_j)
                state = w
            self._phi[worker.id] = new
            meeting.ended[worker.id] = update.receipt(), phi, new
            self._close(sim)

    async def _exchange(
        self, sim: Simulation, worker: Worker, meeting: Meeting, messages: Messages
    ) -> dict[int, list[Params]]:
        """Send all messages to each neighbour, one at a time; return what those neighbours sent who are heard."""
        neighbours = meeting.neighbours[worker.id]
        for other in neighbours:
            if other in meeting.missing:
                continue
            here, there, sent = worker.region, sim.workers[other].region, list[Params]()
            try:
                for payload, codec in messages:
                    sent.append(await sim.send(payload, here, there, codec, sender=worker.id))
            except Lost:
                meeting.deliver(worker.id, other, None)
            else:
                meeting.deliver(worker.id, other, sent)
                self._letters += 1
        letters = {other: await meeting.letter(other, worker.id) for other in neighbours}
        return {other: letter for other, letter in letters.items() if letter is not None}

    def _meeting(self, sim: Simulation, r: Round) -> Optional[Meeting]:
        """The meeting of round `r`, the same for all; None if all who take part have ended it."""
        if r.index > self._begun:
            self._begun = r.index
            drawn = edges(self.graph, own_seed(self, sim.seed), r.index, len(sim.workers))
            self._meetings[r.index] = Meeting(sim, r, drawn)
            for id in sorted(self._down):
                self._meetings[r.index].miss(sim.workers[id], self._phi[id])
                sim.skip(r, sim.workers[id])
        return self._meetings.get(r.index)

    def _leave(self, sim: Simulation, worker: Worker, r: Round) -> None:
        """A worker's job is lost: the others do without it, in all rounds that are begun until it is back."""
        self._down.add(worker.id)
        for meeting in self._meetings.values():
            if meeting.round.index >= r.index:
                meeting.miss(worker, self._phi[worker.id])
                if meeting.round is not r:
                    sim.skip(meeting.round, worker)
        self._close(sim)

    def _close(self, sim: Simulation) -> None:
        """Make the mean of all models the global one, for each round that all who take part have ended, in order."""
        while self._meetings:
            index, meeting = next(iter(self._meetings.items()))
            ended = meeting.ended
            if len(ended) + len(meeting.missing) < len(sim.workers):
                return
            del self._meetings[index]
            after = meeting.missing | {id: new for id, (_, _, new) in ended.items()}
            self._replicas = [after[worker.id] for worker in sim.workers]
            shares = [Contribution([ended[id][0]], ended[id][1], sim.params, sim.version) for id in sorted(ended)]
            if shares:
                sim.commit(mean(self._replicas), shares)


class Meeting:
    """One round: who are neighbours, the letters between them, who is missing, who has ended it and with what."""

    def __init__(self, sim: Simulation, round: Round, edges: Iterator[tuple[int, int]]) -> None:
        self.round = round
        self.missing: dict[int, Params] = {}  # with the models that they keep
        self.ended: dict[int, tuple[Update, Params, Params]] = {}  # the update, φ before and after
        self.neighbours: dict[int, list[int]] = {worker.id: [] for worker in sim.workers}
        for one, other in sorted({(min(edge), max(edge)) for edge in edges}):
            self.neighbours[one].append(other)
            self.neighbours[other].append(one)
        self._clock = sim.clock
        self._letters: dict[tuple[int, int], Event[Optional[list[Params]]]] = {}  # by sender and receiver

    def weight(self, one: int, other: int) -> float:
        """λ of an edge: with these a mixing keeps the mean, and α = 1 averages pairs, and a complete graph."""
        return 1.0 / (1.0 + max(len(self.neighbours[one]), len(self.neighbours[other])))

    def letter(self, sender: int, receiver: int) -> Event[Optional[list[Params]]]:
        """What one worker sends another, whoever asks first; None: nothing arrives."""
        key = sender, receiver
        if key not in self._letters:
            self._letters[key] = Event(self._clock)
            if sender in self.missing:
                self._letters[key].succeed(None)
        return self._letters[key]

    def deliver(self, sender: int, receiver: int, payloads: Optional[list[Params]]) -> None:
        """All of a letter has arrived; None: something of it was lost."""
        self.letter(sender, receiver).succeed(payloads)

    def miss(self, worker: Worker, phi: Params) -> None:
        """A worker takes no part; it keeps its model, and who waits for its letter waits no longer."""
        self.missing[worker.id] = phi
        for (sender, _), letter in self._letters.items():
            if sender == worker.id and not letter.done:
                letter.succeed(None)


def edges(graph: str, seed: int, index: int, workers: int) -> Iterator[tuple[int, int]]:
    """Who are neighbours in a round, by id; what is drawn is the same for all."""
    if graph == "complete":
        yield from combinations(range(workers), 2)
    elif graph == "ring":
        yield from ((id, (id + 1) % workers) for id in range(workers if workers > 1 else 0))
    else:
        for draw in range(2 if graph == "two_pairs" else 1):
            order = generator(seed, "gossip", index, draw).permutation(workers).tolist()
            yield from zip(order[::2], order[1::2])


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("gossip", Gossip)
