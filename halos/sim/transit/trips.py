"""Trips: asynchronous jobs over a network that answers in flows: pull, compute when that has arrived, push."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Optional

from halos.sim.clock import Clock
from halos.sim.course import Course, Loss
from halos.sim.faults.hazards import Hazards
from halos.sim.transit.journeys import Journey, Journeys
from halos.sim.transit.wire import Wire
from halos.world.cluster import Worker


@dataclass(frozen=True)
class Trips:
    """What all of a run's trips need."""

    clock: Clock
    journeys: Journeys
    hazards: Hazards
    wire: Wire


class Trip:
    """One job's: its course is known as far as it has come, and what is not known yet is infinitely far.

    `told` is called with the course whenever that is another, and `over` when there is an update, or its loss is to be
    told. `seconds` is how long the job computes if it does so from a moment on.
    """

    def __init__(
        self,
        trips: Trips,
        course: Course,
        worker: Worker,
        region: int,
        seconds: Callable[[float], float],
        told: Callable[[Course], None],
        over: Callable[[], None],
    ) -> None:
        self.course = course
        self._trips = trips
        self._worker = worker
        self._region = region
        self._seconds = seconds
        self._told = told
        self._over = over
        self._journey: Optional[Journey] = None
        self._ended = False

    def begin(self) -> None:
        """Pull, unless the worker is down."""
        trips, worker, now = self._trips, self._worker, self._trips.clock.now
        nowhere = self.course._replace(computes=math.inf, until=math.inf, ends=math.inf)
        self._tell(nowhere)
        crash = trips.hazards.crash(worker, now, math.inf)
        if crash is not None and crash.at <= now:
            self._lose(crash)
            return
        if crash is not None:  # what ends at that very moment has ended
            trips.clock.at(crash.at, partial(_crashed, weakref.ref(self), crash), last=True)
        self._journey = trips.journeys.message(
            trips.wire.model_bytes, self._region, worker.region, None, worker.id, self._compute, self._lose
        )

    def _compute(self) -> None:
        now = self._trips.clock.now
        self._tell(self.course.pulling_until(now, self._seconds(now))._replace(ends=math.inf))
        self._journey = None
        self._trips.clock.at(self.course.until, self._push)

    def _push(self) -> None:
        if self._ended:
            return
        trips, worker = self._trips, self._worker
        self._journey = trips.journeys.message(
            trips.wire.delta_bytes, worker.region, self._region, worker.id, None, self._arrive, self._miss
        )

    def _arrive(self) -> None:
        self._ended = True
        clock = self._trips.clock
        self._tell(self.course.pushing_until(clock.now))
        if self.course.ends > clock.now:
            clock.at(self.course.ends, self._over)
        else:
            self._over()

    def _miss(self, loss: Loss) -> None:
        """The work was done, and its message was lost."""
        self._lose(loss, trained=True)

    def _lose(self, loss: Loss, trained: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        if self._journey is not None:
            self._journey.give_up()
        clock = self._trips.clock
        told = max(clock.now, loss.at + self._trips.hazards.detection)
        self._tell(self.course._replace(loss=loss, ends=told, trained=trained))
        clock.at(told, self._over)

    def _tell(self, course: Course) -> None:
        self.course = course
        self._told(course)


def _crashed(trip: weakref.ref[Trip], crash: Loss) -> None:
    """Its worker has crashed: long after it, perhaps, and then nothing of it is to be kept until now."""
    under_way = trip()
    if under_way is not None:
        under_way._lose(crash)
