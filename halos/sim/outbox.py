"""An outbox of each worker, for policies whose workers join collectives one by one and go on without what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from halos.errors import Lost
from halos.sim.clock import first_of
from halos.sim.rounds import Round
from halos.sim.simulation import Simulation
from halos.sim.transit.collectives import Collective
from halos.values.params import Params
from halos.values.records import Update
from halos.world.cluster import Worker


class Outbox:
    """What workers have trained and not delivered yet; beside `Backlog`, for rounds that overlap.

    Whose job is lost leaves the collective that it was for. Whose message is lost leaves it as well, and brings what it
    has with its next one (arXiv 2311.08105, section 3.2, "dropped communication"). Who goes down loses what it had not
    delivered: that is dropped. What is lost when the last round has been opened is not made up for. Without faults
    everybody joins, and everything is as if this were not there.
    """

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._held: dict[int, tuple[list[Update], Params]] = {}  # by worker: what it still has to bring, and in all
        self._ended: dict[int, float] = {}  # by worker: when its latest job was done

    async def train(
        self,
        worker: Worker,
        start: Params,
        steps: Optional[int] = None,
        *,
        lr_step: Optional[int] = None,
        round: Optional[Round] = None,
    ) -> Optional[Update]:
        """Give `worker` a job, as `sim.train` does; return its update, or None, when that is known, if it is lost."""
        sim = self._sim
        self.keeps(worker)
        try:
            update = await sim.train(worker, start, steps, lr_step=lr_step, round=round)
        except Lost:
            self.keeps(worker)
            return None
        self._ended[worker.id] = update.time
        if not self.keeps(worker):  # it goes down as it is done
            sim.drop([update])
            return None
        return update

    def keeps(self, worker: Worker) -> bool:
        """Whether `worker` has been up since its latest job was done, and so has what it had then."""
        ended = self._ended.get(worker.id, 0.0)
        kept = self._sim.faults.up(worker, since=ended)
        if not kept and worker.id in self._held:
            self._sim.drop(self._held.pop(worker.id)[0])
        return kept

    def held(self, worker: Worker) -> Optional[Params]:
        """Return the sum of the payloads that `worker` has not delivered; None if there are none."""
        held = self._held.get(worker.id)
        return None if held is None else held[1]

    def join(
        self,
        collective: Collective,
        worker: Worker,
        update: Optional[Update],
        payload: Optional[Params] = None,
        *,
        whole: bool = False,
    ) -> Optional[Params]:
        """Let `worker` join `collective` with `payload`, or the update's delta, and what it had not delivered before.

        With `whole` the payload holds all that by itself. Returns what it joins with; None if it leaves: if there is no
        update, if the worker was down since, or if the message is lost.
        """
        sim = self._sim
        if update is None or not self.keeps(worker):
            if update is not None:
                sim.drop([update])
            collective.leave(worker)
            return None
        several: Sequence[Update] = [update]
        payload = update.delta if payload is None else payload
        if worker.id in self._held:
            before, held = self._held.pop(worker.id)
            several, payload = [*before, update], payload if whole else held + payload
        if not sim.faults.delivers(update):
            self._held[worker.id] = [each.receipt() for each in several], payload
            collective.leave(worker)
            return None
        collective.join(worker, payload, several)
        return payload

    async def mean(self, collective: Collective) -> Optional[Params]:
        """Return what has become of `collective`, as soon as it has arrived; None if nothing has.

        If nobody was there, not before the first worker is back.
        """
        try:
            return await collective.arrival
        except Lost:
            await first_of([self._sim.faults.returned(worker) for worker in self._sim.workers])
            return None
