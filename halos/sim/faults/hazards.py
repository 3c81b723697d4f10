"""Hazards: what the cluster's faults do to jobs, messages and collectives that are under way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations
from typing import Optional

from halos.sim.course import Loss
from halos.values.rounding import earliest, latest
from halos.world.cluster import Worker
from halos.world.faults import FaultModel, NoFaults


class Hazards:
    """A fault model, asked about what is under way. It numbers the messages, as they are sent."""

    unreliable = True  # whether anything can be lost at all

    def __init__(self, model: FaultModel) -> None:
        self.model = model
        self.detection = model.detection_seconds  # from a loss until whoever waits is told
        self.messages = 0
        self.asked = 0  # how often a policy has asked whether a message to a collective arrives, since `take_asked`
        self.lost_messages = 0  # so far as whoever waits has been told

    def message(self, src: int, dst: int, start: float, seconds: float) -> tuple[float, Optional[Loss]]:
        """Return the moment at which a message of `seconds` (without faults) is there, and its loss, if it is lost.

        It slows down with its link, and is lost at the moment the link goes down.
        """
        dropped = self.drops()
        now, left = start, seconds
        while True:
            share, until = self._link(src, dst, now)
            if share == 0.0:
                return now, Loss(now, f"the link {src}->{dst} is down", message=True)
            if now + left / share <= latest(until):
                ends = now + left / share
                lost = Loss(ends, f"a message {src}->{dst} did not arrive", message=True)
                return ends, lost if dropped else None
            left -= (until - now) * share
            now = until

    def delivers(self) -> bool:
        """Whether one more message, to a collective, arrives."""
        self.asked += 1
        lost = self.drops()
        self.lost_messages += lost
        return not lost

    def drops(self) -> bool:
        """Whether one more message that is sent will not arrive, even if its link stays up."""
        self.messages += 1
        return self.model.loses(self.messages - 1)

    def collective(self, regions: Iterable[int], start: float, seconds: float) -> tuple[float, Optional[Loss]]:
        """Return the moment at which a collective among members in `regions` is over, and its loss, if it is lost.

        It is as slow as the slowest link between them, and waits for one that is down, unless that stays so for ever.
        """
        links = self.between(regions)
        now, left = start, seconds
        while True:
            share, until = self.share(links, now)
            if share > 0.0 and now + left / share <= latest(until):
                return now + left / share, None
            if until == math.inf:
                return now, Loss(now, "a link is down and stays so")
            left -= (until - now) * share
            now = until

    def take_asked(self) -> int:
        """Return how many messages a policy has asked about since this was called: those of the next collective."""
        asked, self.asked = self.asked, 0
        return asked

    def gather(self, workers: list[Worker], unasked: int, start: float) -> Optional[Loss]:
        """Return the loss that keeps a collective from beginning at `start`, or None: it needs all members' messages.

        A policy that asks for each message goes on without those that do not arrive, and brings the rest; of
        `unasked` ones nobody has asked.
        """
        lost = [self.drops() for _ in range(unasked)]
        self.lost_messages += sum(lost)
        if any(lost):
            return Loss(start, "a message to it did not arrive")
        down = next((loss for worker in workers if (loss := self.crash(worker, start, start))), None)
        return None if down is None else Loss(start, down.why)  # it may have been down for long

    def crash(self, worker: Worker, start: float, end: float) -> Optional[Loss]:
        """Return the loss of `worker` in [start, end), at the moment it goes down (perhaps before), or None."""
        begins, _ = self._outage(worker, start)
        return (
            Loss(begins, f"worker {worker.id} was down") if begins < earliest(end) or begins <= latest(start) else None
        )

    def stays_up(self, worker: Worker, start: float, end: float) -> bool:
        """Whether `worker` is up all the time from `start` to `end`, both included."""
        return self._outage(worker, start)[0] > latest(end)

    def back(self, worker: Worker, time: float, server: Optional[int] = None) -> float:
        """The first moment from `time` on when `worker` is up, and its links with `server`, if given; or infinity."""
        while time < math.inf:
            begins, ends = self._outage(worker, time)
            ready = ends if begins <= latest(time) else time
            if server is not None:
                ready = max(ready, self.up(server, worker.region, ready), self.up(worker.region, server, ready))
            if ready == time:
                break
            time = ready
        return time

    def up(self, src: int, dst: int, time: float) -> float:
        """The first moment from `time` on when the link carries anything; or infinity."""
        while time < math.inf:
            share, until = self._link(src, dst, time)
            if share > 0.0:
                break
            time = until
        return time

    def between(self, regions: Iterable[int]) -> tuple[tuple[int, int], ...]:
        """Return the links that a collective among members in `regions` needs: (from, to)."""
        among = sorted(set(regions))
        return tuple(permutations(among, 2)) or tuple((region, region) for region in among)

    def share(self, links: Iterable[tuple[int, int]], time: float) -> tuple[float, float]:
        """Return what the slowest of `links`, (from, to), has left of its bandwidth at `time`, and until when."""
        states = [self._link(src, dst, time) for src, dst in links]
        return min((share for share, _ in states), default=1.0), min((until for _, until in states), default=math.inf)

    def _outage(self, worker: Worker, time: float) -> tuple[float, float]:
        """As the model says; what is over at `time` but for a rounding error, is over."""
        begins, ends = self.model.outage(worker, time)
        while time < ends <= latest(time):
            time = ends
            begins, ends = self.model.outage(worker, time)
        return begins, ends

    def _link(self, src: int, dst: int, time: float) -> tuple[float, float]:
        """As the model says; what changes at `time` but for a rounding error, has changed."""
        share, until = self.model.link(src, dst, time)
        while time < until <= latest(time):
            time = until
            share, until = self.model.link(src, dst, time)
        return share, until


class NoHazards(Hazards):
    """Nothing goes wrong: whatever is asked, the answer is what was to be expected."""

    unreliable = False

    def message(self, src: int, dst: int, start: float, seconds: float) -> tuple[float, Optional[Loss]]:
        return start + seconds, None

    def delivers(self) -> bool:
        return True

    def collective(self, regions: Iterable[int], start: float, seconds: float) -> tuple[float, Optional[Loss]]:
        return start + seconds, None

    def gather(self, workers: list[Worker], unasked: int, start: float) -> Optional[Loss]:
        return None

    def crash(self, worker: Worker, start: float, end: float) -> Optional[Loss]:
        return None

    def stays_up(self, worker: Worker, start: float, end: float) -> bool:
        return True

    def back(self, worker: Worker, time: float, server: Optional[int] = None) -> float:
        return time

    def up(self, src: int, dst: int, time: float) -> float:
        return time


def hazards_of(model: FaultModel) -> Hazards:
    """Return the hazards of a fault model; NoHazards, which costs nothing, for one that is exactly NoFaults."""
    return NoHazards(model) if type(model) is NoFaults else Hazards(model)
