"""Evaluations: which models are evaluated, at which moments beside commits, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Optional

from halos.errors import ConfigError, Diverged, did_you_mean, shown
from halos.sim.clock import Clock
from halos.sim.jobs import Jobs
from halos.sim.ledger import Ledger
from halos.sim.limits import FIRST_WORKER, LOCAL_SERVERS, WORKERS
from halos.sim.listeners import Listeners
from halos.sim.parts import Parts
from halos.sim.servers import Servers
from halos.training.metrics import KNOWN as KNOWN_METRICS
from halos.values.params import Params, mean
from halos.values.records import GLOBAL, Evaluation
from halos.values.rounding import latest

Measures = dict[str, dict[str, float]]  # by set, the loss and other means
KNOWN = (GLOBAL, LOCAL_SERVERS, WORKERS, FIRST_WORKER)


class Evaluations:
    """Evaluates the models that `evaluate.of` names, on every set: `now`, or at the multiples of `every_seconds`."""

    def __init__(
        self, parts: Parts, clock: Clock, ledger: Ledger, servers: Servers, jobs: Jobs, tell: Listeners
    ) -> None:
        self.offered: dict[str, Callable[[], Optional[Params]]] = {}  # models that the policy has, by name
        self._parts = parts
        self._clock = clock
        self._ledger = ledger
        self._servers = servers
        self._jobs = jobs
        self._tell = tell
        self._every = parts.evaluate.every_seconds or math.inf
        self._moments = 1  # the next multiple of it
        self._latest: Optional[float] = None  # when all were last evaluated
        self._known: dict[str, tuple[int, Measures]] = {}  # by model: which one, and what was measured
        self._seen: set[str] = set()  # of `evaluate.of`: those that there were
        self._mean: Optional[tuple[list[int], Params]] = None  # of the workers' parameters, the latest, and of which

    @property
    def of(self) -> list[str]:
        """Which models are evaluated, as configured, or the global one and what the policy offers."""
        return [GLOBAL, *self.offered] if self._parts.evaluate.of is None else self._parts.evaluate.of

    @property
    def missing(self) -> list[str]:
        """Those of them that there never were so far."""
        return [name for name in self.of if name not in self._seen] if self._parts.real else []

    def check(self) -> None:
        """Raise ConfigError for a model that neither every run has nor the policy offers."""
        known = [*KNOWN, *(name for name in self.offered if name not in KNOWN)]
        for name in self.of:
            if name not in known:
                raise ConfigError("of", f"{shown(name)} is none of {', '.join(known)}{did_you_mean(name, known)}")
        self._jobs.keep_places(any(name in self.of and name not in self.offered for name in (WORKERS, FIRST_WORKER)))

    def now(self, again: bool = True) -> Optional[dict[str, float]]:
        """Evaluate all models; return the global one's losses by set, None if that is not evaluated.

        Unless `again`, one that has been evaluated before as it is now is left out.
        """
        losses = None
        self._latest = self._clock.now
        for name, params in self._models():
            if again or self._changed(name, params):
                found = self.evaluate(params, name)
                losses = found if name == GLOBAL else losses
        return losses

    def before(self, event: float, end: float, reached: Callable[[dict[str, float]], bool]) -> bool:
        """Evaluate all models as they are at each moment before the next `event` and the `end`; it becomes that moment.

        (An event that is a rounding error later is one of that moment.) Returns whether, and stops when, the global
        model's losses have `reached` what is wanted.
        """
        while (moment := self._moments * self._every) < end and latest(moment) < event:
            self._moments += 1
            self._clock.now = max(self._clock.now, moment)
            # If they were at this moment by local steps, too: those that have changed since.
            if reached(self.now(again=self._latest != self._clock.now) or {}):
                return True
            if not self._known:  # nothing is trained: never any losses
                self._every = math.inf
        return False

    def _changed(self, name: str, params: Params) -> bool:
        """Whether a model is another than when it was last evaluated; one that is made anew is seen by its losses."""
        serial, known = self._known.get(name, (None, {}))
        if serial == params.serial:
            return False
        measures = self._measured(params)
        self._known[name] = params.serial, measures
        return measures != known

    def evaluate(self, params: Params, of: str) -> dict[str, float]:
        """As Simulation.evaluate."""
        serial, known = self._known.get(of, (None, {}))
        measures = known if serial == params.serial else self._measured(params)
        losses = {name: means["loss"] for name, means in measures.items()}
        counts = (
            self._servers.main.version,
            self._servers.main.local_steps,
            self._ledger.trained,
            self._ledger.trained * self._parts.tokens_per_step,
        )
        for name, means in measures.items():
            metrics = {**dict.fromkeys(KNOWN_METRICS), **means}
            del metrics["loss"]
            self._tell.evaluate(Evaluation(self._clock.now, *counts, means["loss"], name, of, metrics))
        if not all(map(math.isfinite, losses.values())):
            raise Diverged(
                f"evaluation loss of the {of} model became {losses} at {self._clock.now:.6g} simulated seconds, after"
                f" {self._servers.main.local_steps} committed local steps (version {self._servers.main.version})"
            )
        if losses:
            self._known[of] = params.serial, measures
        return losses

    def _measured(self, params: Params) -> Measures:
        sets = ("validation", *self._parts.evaluate.sets)
        found = {name: self._parts.executor.evaluate(params, name) for name in sets}
        known = {name: means for name, means in found.items() if means is not None}
        return {name: means if isinstance(means, dict) else {"loss": means} for name, means in known.items()}

    def _models(self) -> Iterator[tuple[str, Params]]:
        """Yield the models there are now, by the name under which they are recorded."""
        for name in self.of:
            for label, params in self._called(name):
                self._seen.add(name)
                yield label, params

    def _called(self, name: str) -> Iterator[tuple[str, Params]]:
        if name in self.offered:
            offered = self.offered[name]()
            if offered is not None:
                yield name, offered
        elif name == LOCAL_SERVERS:
            yield from self._servers.local()
        elif name == WORKERS:
            several = self._jobs.places(self._servers.initial)
            serials = [each.serial for each in several]
            if self._mean is None or self._mean[0] != serials:
                self._mean = serials, several[0] if len(set(serials)) == 1 else mean(several)
            yield name, self._mean[1]
        elif name == FIRST_WORKER:
            yield name, self._jobs.places(self._servers.initial)[0]
        else:
            yield GLOBAL, self._servers.main.params
