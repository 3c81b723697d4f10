"""Transport: transfers and collectives under way, through codecs, over the network, under faults."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Optional

from halos.errors import Lost
from halos.rules.codecs import Codec
from halos.sim.clock import Clock, Event
from halos.sim.faults.hazards import Hazards
from halos.sim.listeners import Listeners
from halos.sim.transit.collectives import Collective, Collectives
from halos.sim.transit.wire import Reduction, Wire
from halos.values.params import Params
from halos.values.records import Transfer
from halos.world.cluster import Cluster
from halos.world.network import NetworkModel


class Transport:
    """What is sent: every event is under way already, and its value arrives at the other end."""

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        network: NetworkModel,
        wire: Wire,
        tell: Listeners,
        hazards: Optional[Hazards],
    ) -> None:
        self.reducing: Optional[float] = None  # since when a collective is under way
        self.lost: Optional[str] = None  # why the last collective was, if one was
        self._clock = clock
        self._workers = cluster.workers
        self._network = network
        self._wire = wire
        self._tell = tell
        self._hazards = hazards
        self._collectives = Collectives(clock, wire.reduce, self._start)

    def send(
        self, payload: Params, source: int, target: int, codec: Optional[Codec], sender: Hashable
    ) -> Event[Params]:
        """A transfer from region to region, as in Simulation.send."""
        codec = codec or self._wire.codec
        start, nbytes, hazards = self._clock.now, self._wire.bytes(payload, codec), self._hazards
        seconds, loss = self._network.transfer(nbytes, source, target, start), None
        if hazards is not None:
            seconds, loss = hazards.message(source, target, start, seconds)
            if loss is not None:
                seconds += hazards.model.detection_seconds

        def arrive() -> Params:
            if hazards is not None and loss is not None:
                hazards.lost_messages += 1
                raise Lost(f"a transfer from region {source} to region {target}", loss.at, loss.why)
            self._tell.transfer(Transfer(start, self._clock.now, source, target, nbytes, "send"))
            return self._wire.arriving((source, target) if sender is None else sender, payload, codec)

        return self._clock.timeout(seconds, arrive)

    def all_reduce(
        self, payloads: Iterable[Params], codec: Optional[Codec], senders: Optional[list[int]]
    ) -> Event[Params]:
        """The mean of all payloads; `senders` are the workers 0, 1, … unless given."""
        return self._collectives.all_at_once(payloads, codec or self._wire.codec, senders)

    def collective(self, key: Hashable, members: Optional[int], codec: Optional[Codec]) -> Collective:
        """The collective of that name, of all workers unless said otherwise."""
        return self._collectives.open(members or len(self._workers), codec or self._wire.codec, key)

    def exchange_seconds(self, region: int, server: Optional[int]) -> float:
        """How long a whole model's exchange would take now; see Simulation.exchange_seconds."""
        wire, now = self._wire, self._clock.now
        if server is None:
            gathered = bool(getattr(wire.codec, "gathered", False))
            return self._collective_seconds(wire.delta_bytes, len(self._workers), gathered, now)
        return sum(self._network.round_trip(wire.model_bytes, wire.delta_bytes, server, region, now))

    def _start(self, reduction: Reduction) -> Event[Params]:
        """Let a complete collective take its time."""
        start = self.reducing = self._clock.now
        seconds = self._collective_seconds(reduction.bytes, reduction.members, reduction.gathered, start)
        loss, hazards = None, self._hazards
        if hazards is not None and reduction.members > 1:
            senders = [each for each in reduction.senders if isinstance(each, int) and each < len(self._workers)]
            members = [self._workers[each] for each in senders]
            loss = hazards.gather(members, reduction.members, start)
            if loss is None:
                seconds, loss = hazards.collective([each.region for each in members], start, seconds)
            if loss is not None:
                self.lost = loss.why
                seconds = loss.at - start + hazards.model.detection_seconds

        def arrive() -> Params:
            self.reducing = None
            if loss is not None:
                raise Lost("a collective", loss.at, loss.why)
            self._tell.transfer(Transfer(start, self._clock.now, None, None, reduction.crossing, "all_reduce"))
            return reduction.mean

        return self._clock.timeout(seconds, arrive)

    def _collective_seconds(self, nbytes: int, members: int, gathered: bool, start: float) -> float:
        network = self._network
        if not gathered:
            return network.all_reduce(nbytes, members, start)
        all_gather: Optional[Callable[[int, int, float], float]] = getattr(network, "all_gather", None)
        if all_gather is not None:
            return all_gather(nbytes, members, start)
        return network.all_reduce(-(-nbytes * members // 2), members, start)  # as many bytes cross each link
