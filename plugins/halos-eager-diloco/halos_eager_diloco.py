"""Eager DiLoCo: one's own term of the outer gradient fresh, the others' from an earlier round (arXiv 2502.12996)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from halos import (
    Collective,
    MergeRule,
    Nesterov,
    Outbox,
    Params,
    Register,
    Simulation,
    Worker,
    all_of,
    hookimpl,
    mean,
    require,
    start_of,
)


@dataclass
class EagerDiLoCo:
    """DiLoCo with eager updates (arXiv 2502.12996, section 3): every worker has a replica and outer state of its own.

    Worker m ends round r with Δ_m^r and steps at once with Δ̃_m = Δ̄^{r−k} + (Δ_m^r − Δ_m^{r−k}) / M: its own term
    of the mean is fresh, the others' are k rounds old (means before the first round are zero). When no round is
    left it awaits what is outstanding and takes its last outer step again, with all that was missing. The global
    model is the mean of the replicas; each worker's own is the server `replica-0`, … in the records. Under faults a
    round's mean is that of who is heard, and who is not brings its Δ_m with the next. Who crashed has no fresh term,
    and comes back to its replica.
    """

    outer: MergeRule = field(default_factory=lambda: Nesterov(lr=0.4, momentum=0.9))  # of every worker
    outer_delay: int = 1  # k, rounds by which the others' terms come late

    def __post_init__(self) -> None:
        require(self.outer_delay >= 1, "outer_delay", self.outer_delay, "a positive number of rounds")

    async def run(self, sim: Simulation) -> None:
        self._averages: deque[tuple[int, Collective]] = deque()  # of rounds not yet counted, by index
        self._replicas: dict[int, dict[int, Params]] = {}  # by worker, of rounds that not everybody has ended
        self._versions = [sim.version]  # of the global model, before each round; one of nobody's leaves it as it is
        self._outbox = Outbox(sim)
        replicas = await all_of([sim.spawn(self._work(sim, worker)) for worker in sim.workers])
        self._commit(sim, replicas, [*self._averages])

    async def _work(self, sim: Simulation, worker: Worker) -> Params:
        theta, state, k, m = sim.params, self.outer.init(sim.params), self.outer_delay, len(sim.workers)
        outbox = self._outbox
        under_way: deque[tuple[Collective, Params | None]] = deque()  # means of the last k rounds, its own Δ in them
        last: tuple[Params, Any, Params] | None = None  # before the last outer step: θ, its state, and the step's Δ̃
        for r in sim.rounds():
            held = outbox.held(worker)  # its terms are in θ
            update = await outbox.train(worker, start_of(self.outer, theta, state), round=r)
            average = sim.collective(r.index)
            fresh = update.delta if update is not None else None if held is None else -held  # Δ_m^r
            if not self._averages or self._averages[-1][0] < r.index:
                self._averages.append((r.index, average))
            under_way.append((average, outbox.join(average, worker, update)))  # start averaging, do not wait
            mixed = None if fresh is None else fresh / m
            if len(under_way) > k:  # Δ̃ ← Δ̄^{r−k} + (Δ_m^r − Δ_m^{r−k}) / M
                late, old = under_way.popleft()
                mixed = mixture(await outbox.mean(late), fresh, old, m)
            if mixed is not None:
                last = theta, state, mixed
                theta, state = self.outer.step(theta, mixed, state)
            if update is not None:
                sim.commit(theta, [update], server=f"replica-{worker.id}")  # its own term, fresh: no drift
            self._ended(sim, r.index, worker, theta)
        if last is not None:  # the last step again, with Σ (Δ̄^j − Δ_m^j / M) of what had not arrived
            before, state, mixed = last
            if (held := outbox.held(worker)) is not None:  # nobody will ever get it
                mixed = mixed - held / m
            for late, own in under_way:
                if (missing := mixture(await outbox.mean(late), None, own, m)) is not None:
                    mixed = mixed + missing
            theta, _ = self.outer.step(before, mixed, state)
        return theta

    def _ended(self, sim: Simulation, index: int, worker: Worker, theta: Params) -> None:
        """A replica has ended round `index`; the last one to do so makes their mean the global model."""
        replicas = self._replicas.setdefault(index, {})
        replicas[worker.id] = theta
        if len(replicas) == len(sim.workers):
            ordered = [replica for _, replica in sorted(self._replicas.pop(index).items())]
            self._commit(sim, ordered, [self._averages.popleft()] if index >= self.outer_delay else [])

    def _commit(self, sim: Simulation, replicas: list[Params], averages: list[tuple[int, Collective]]) -> None:
        """The mean of the replicas, in which nothing of these rounds is outstanding."""
        several = [average.contributions(sim.params, self._versions[index]) for index, average in averages]
        sim.commit(mean(replicas), [*chain.from_iterable(several)])
        self._versions.append(sim.version)


def mixture(mean: Params | None, fresh: Params | None, old: Params | None, members: int) -> Params | None:
    """Return Δ̄ + (Δ_m − Δ'_m) / M, of what there is; None if there is nothing."""
    if fresh is None and old is None:
        return mean
    own = fresh if old is None else -old if fresh is None else fresh - old
    return own / members if mean is None else mean + own / members


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("eager_diloco", EagerDiLoCo)
