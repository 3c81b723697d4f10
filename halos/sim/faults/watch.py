"""Faults as a policy may ask about them, and as a run reports them afterwards: `sim.faults`."""

from __future__ import annotations

import math
from itertools import islice, product
from typing import Optional, Union

from halos.sim.clock import Clock, Event
from halos.sim.faults.hazards import Hazards
from halos.sim.faults.losses import Losses
from halos.sim.ledger import Ledger
from halos.values.records import Update
from halos.world.cluster import Cluster, Region, Worker, region_index
from halos.world.faults import Outage, outages

MOST_NAMED = 10  # workers or links, in a message


class Watch:
    """Faults as they are at the moment; without any, everybody is up and everything arrives."""

    def __init__(self, cluster: Cluster, clock: Clock, hazards: Hazards, losses: Losses, ledger: Ledger) -> None:
        self._cluster = cluster
        self._clock = clock
        self._hazards = hazards
        self._losses = losses
        self._ledger = ledger

    def returned(self, worker: Worker, server: Union[Region, int, None] = None) -> Event[None]:
        """Return an event for when `worker` is up, and its links with `server`: now, unless a fault keeps one down."""
        region = None if server is None else region_index(server)
        return self._clock.at(self._hazards.back(worker, self._clock.now, region))

    def reachable(self, src: Union[Region, int], dst: Union[Region, int]) -> Event[None]:
        """Return an event for when the link from region to region is up: now, unless a fault keeps it down."""
        return self._clock.at(self._hazards.up(region_index(src), region_index(dst), self._clock.now))

    def up(self, worker: Worker, since: Optional[float] = None) -> bool:
        """Whether `worker` is up, and has been since `since` (virtual seconds).

        Otherwise what it had and did not deliver is gone.
        """
        now = self._clock.now
        return self._hazards.stays_up(worker, now if since is None else since, now)

    def delivers(self, update: Update) -> bool:
        """Whether this update arrives at a collective that its worker brings it to now; asked once for each message.

        One that does not stays with its worker, and does not count towards the budget until it is committed.
        """
        arrives = self._hazards.delivers()
        if not arrives:
            self._ledger.miss(update)
        return arrives

    def lost(self) -> dict[str, int]:
        """How many jobs and messages faults have taken; messages include those of jobs."""
        return {"jobs": self._losses.jobs, "messages": self._hazards.lost_messages}

    def outages(self) -> list[Outage]:
        """The intervals in which workers were down so far, one worker after another."""
        return list(outages(self._hazards.model, self._cluster.workers, self._clock.now))

    def gone(self) -> str:
        """Words for a message: which workers and links are down for ever; empty if none is."""
        if not self._hazards.unreliable:
            return ""
        hazards, now, regions = self._hazards, self._clock.now, range(len(self._cluster.regions))
        workers = (str(worker.id) for worker in self._cluster.workers if hazards.back(worker, now) == math.inf)
        links = (f"{src}->{dst}" for src, dst in product(regions, repeat=2) if hazards.up(src, dst, now) == math.inf)
        said = ""
        for what, gone in (("workers", workers), ("links", links)):
            if named := list(islice(gone, MOST_NAMED + 1)):
                more = ", …" if len(named) > MOST_NAMED else ""
                said += f"; {what} {', '.join(named[:MOST_NAMED])}{more} are down for ever"
        return said
