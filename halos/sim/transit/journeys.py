"""Journeys: messages and collectives on their way over links that are shared, phase after phase, under faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

from halos.rules.aggregate import Exchange
from halos.sim.clock import Clock
from halos.sim.course import Loss
from halos.sim.faults.hazards import Hazards
from halos.sim.transit.flows import Flow, Flows
from halos.world.cluster import Worker
from halos.world.fair import Link
from halos.world.network import NetworkModel
from halos.world.phases import Phase, bits_until, state_of

Arrived = Callable[[], None]
Missed = Callable[[Loss], None]


def has_flows(network: NetworkModel) -> bool:
    """Whether a network model answers in flows."""
    return getattr(network, "capacity", None) is not None


class Impaired(NamedTuple):
    """What faults leave of the links between regions, as a link that those on `way` cross besides."""

    pairs: tuple[tuple[int, int], ...]  # from region to region: the worst of them counts
    way: tuple[tuple[Link, float], ...]  # links and weights


class Journey:
    """One of them: it arrives, is lost, or is given up before.

    Once it is over it keeps nothing of whom it told: a change of its links may be due long after that.
    """

    __slots__ = ("_arrived", "_flow", "_missed", "_phases", "_road")

    def __init__(
        self, road: Journeys, phases: Iterable[Phase], arrived: Arrived, missed: Optional[Missed] = None
    ) -> None:
        self._road = road
        self._phases = iter(phases)
        self._arrived: Optional[Arrived] = arrived  # None: it is over
        self._missed = missed
        self._flow: Optional[Flow] = None

    @property
    def over(self) -> bool:
        return self._arrived is None

    def go_on(self) -> None:
        """Begin the next phase; if there is none, it has arrived."""
        arrived = self._arrived
        if arrived is None:
            return
        phase = next(self._phases, None)
        if phase is None:
            self._end()
            arrived()
            return

        def left() -> None:  # each arrives by an event of its own, also of those that do so at one moment
            clock = self._road.clock
            clock.at(clock.now + phase.latency, self.go_on)

        self._flow = self._road.flows.add(phase, left)

    def give_up(self) -> None:
        """Take it off the links; it never arrives."""
        if self._flow is not None:
            self._road.flows.give_up(self._flow)
        self._end()

    def lose(self, loss: Loss) -> None:
        """Give it up, and say so."""
        missed = self._missed
        assert missed is not None, "it can be lost, and is not over"
        self.give_up()
        missed(loss)

    def _end(self) -> None:
        self._arrived = self._missed = self._flow = None


class Journeys:
    """All that is under way over a network that answers in flows. It numbers them as they begin."""

    def __init__(self, clock: Clock, network: NetworkModel, hazards: Hazards) -> None:
        self.clock = clock
        self.flows = Flows(clock, self.capacity)
        self._network: Any = network
        self._hazards = hazards
        self._count = 0

    def message(
        self,
        nbytes: int,
        src: int,
        dst: int,
        sender: Optional[int],
        receiver: Optional[int],
        arrived: Arrived,
        missed: Missed,
    ) -> Journey:
        """Send a message from region to region, from and to workers if these are known.

        `arrived` or `missed` is called when it is there, or lost: at the moment at which its link goes down, or, if it
        does not arrive for other reasons, would have been there.
        """
        phases = self._network.message_phases(nbytes, src, dst, self._number(), sender, receiver) or [Phase({})]
        if not self._hazards.unreliable:
            return self._begin(phases, arrived)
        dropped = self._hazards.drops()
        loss = f"a message {src}->{dst} did not arrive"

        def ends() -> None:
            if dropped:
                missed(Loss(self.clock.now, loss, message=True))
            else:
                arrived()

        journey = Journey(self, self._impaired(phases, ((src, dst),)), ends, missed)

        def watch() -> None:
            if journey.over:
                return
            share, until = self._hazards.share(((src, dst),), self.clock.now)
            if share <= 0.0:
                journey.lose(Loss(self.clock.now, f"the link {src}->{dst} is down", message=True))
            elif until < math.inf:
                self.clock.at(until, watch, last=True)  # what arrives at that moment has arrived

        watch()
        journey.go_on()
        return journey

    def collective(
        self, exchanges: Iterable[Exchange], members: Sequence[Worker], arrived: Arrived, missed: Missed
    ) -> Journey:
        """Begin a collective of exchanges, one after the other.

        It waits while a link between its members' regions is down, unless that stays so.
        """
        phases = [
            phase
            for nbytes, gathered in exchanges
            for phase in self._network.collective_phases(nbytes, members, gathered, self._number())
        ] or [Phase({})]
        if not self._hazards.unreliable or len(members) == 1:
            return self._begin(phases, arrived)
        pairs = self._hazards.between(member.region for member in members)
        journey = Journey(self, self._impaired(phases, pairs), arrived, missed)

        def watch() -> None:
            if journey.over:
                return
            share, until = self._hazards.share(pairs, self.clock.now)
            if until < math.inf:
                self.clock.at(until, watch, last=True)
            elif share <= 0.0:
                journey.lose(Loss(self.clock.now, "a link is down and stays so"))

        watch()
        journey.go_on()
        return journey

    def capacity(self, link: Link, time: float) -> tuple[float, float]:
        """Return a link's bits per second at `time`, and until when it has these.

        What is impaired has, at most, its share of what a lone flow would have.
        """
        if not isinstance(link, Impaired):
            bits, until = self._network.capacity(link, time)
            return bits, until
        share, until = self._hazards.share(link.pairs, time)
        rates = [(state_of(each, self.capacity, time), weight) for each, weight in link.way]
        lone = min(bits / weight for (bits, _), weight in rates)
        return share * lone if share > 0.0 else 0.0, min(until, *(end for (_, end), _ in rates))

    def links(self) -> dict[str, dict[str, Optional[float]]]:
        """What each link has carried so far, by name: `bytes`, and `utilisation`, the share of what it could have.

        None: no share, as of an infinite bandwidth. Links that nothing has crossed are left out.
        """
        found = {}
        for link, nbytes in self.flows.carried().items():
            if not isinstance(link, Impaired):
                could = bits_until(link, self.capacity, self.clock.now)
                share = nbytes * 8.0 / could if 0.0 < could < math.inf else None
                found[str(link)] = {"bytes": nbytes, "utilisation": share}
        return dict(sorted(found.items()))

    def words(self) -> str:
        """Words for a message: which links hold up what is under way, for ever; empty if none does."""
        links = [str(link) for link in self.flows.standing() if not isinstance(link, Impaired)]
        return f"; nothing gets through {', '.join(links)} any more" if links else ""

    def _begin(self, phases: Iterable[Phase], arrived: Arrived) -> Journey:
        journey = Journey(self, phases, arrived)
        journey.go_on()
        return journey

    def _number(self) -> int:
        self._count += 1
        return self._count - 1

    def _impaired(self, phases: Iterable[Phase], pairs: tuple[tuple[int, int], ...]) -> Iterator[Phase]:
        """The same phases, over what faults leave of the links as well."""
        for phase in phases:
            weights = phase.weights()
            if weights:
                link = Impaired(pairs, tuple(weights.items()))
                phase = phase._replace(loads={**phase.loads, link: phase.size})
            yield phase
