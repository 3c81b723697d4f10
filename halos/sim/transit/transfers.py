"""Transfers: payloads on their way from region to region, through codecs, over the network, under faults."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Optional

from halos.errors import Lost
from halos.rules.codecs import Codec
from halos.sim.clock import Clock, Event
from halos.sim.course import Loss
from halos.sim.faults.hazards import Hazards
from halos.sim.listeners import Listeners
from halos.sim.transit.journeys import Journeys
from halos.sim.transit.wire import Wire
from halos.values.params import Params
from halos.values.records import Transfer
from halos.world.network import NetworkModel


class Transfers:
    """Sends payloads: each returned event is under way already, and has the value as decoded at the other end."""

    def __init__(
        self,
        clock: Clock,
        network: NetworkModel,
        wire: Wire,
        tell: Listeners,
        hazards: Hazards,
        journeys: Optional[Journeys],
    ) -> None:
        self._clock = clock
        self._network = network
        self._wire = wire
        self._tell = tell
        self._hazards = hazards
        self._journeys = journeys  # None: the network knows how long everything takes

    def send(
        self, payload: Params, source: int, target: int, codec: Optional[Codec], sender: Hashable
    ) -> Event[Params]:
        """Send from region to region, as in Simulation.send: the event raises Lost if the message is lost."""
        wire, codec = self._wire, codec or self._wire.codec
        clock, hazards, start, nbytes = self._clock, self._hazards, self._clock.now, wire.bytes(payload, codec)
        whose = (source, target) if sender is None else sender
        loss: Optional[Loss] = None

        def arrive() -> Params:
            if loss is not None:
                hazards.lost_messages += 1
                raise Lost(f"a transfer from region {source} to region {target}", loss.at, loss.why)
            self._tell.transfer(Transfer(start, clock.now, source, target, nbytes, "send"))
            return wire.arriving(whose, wire.sent(whose, payload), codec)

        if self._journeys is None:
            ends, loss = hazards.message(source, target, start, self._network.transfer(nbytes, source, target, start))
            return clock.at(ends if loss is None else loss.at + hazards.detection, arrive)

        def missed(found: Loss) -> None:
            nonlocal loss
            loss = found
            clock.at(loss.at + hazards.detection, event.happen)

        event: Event[Params] = Event(clock, arrive)
        worker = sender if isinstance(sender, int) else None
        self._journeys.message(nbytes, source, target, worker, None, event.happen, missed)
        return event

    def round_trip_seconds(self, server: int, region: int) -> float:
        """Seconds that a whole model's pull and push would take now."""
        wire = self._wire
        return sum(self._network.round_trip(wire.model_bytes, wire.delta_bytes, server, region, self._clock.now))
