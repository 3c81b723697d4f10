"""Servers: the models that are committed to, their versions, and how stale what they take in is."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Optional, Union

from halos.values.params import NO_VERSIONS, Params
from halos.values.records import GLOBAL, Commit, Contribution, EndToEnd, Share, Update


@dataclass
class Server:
    """A model that is committed to: its last parameters, version, and local steps so far."""

    params: Params
    version: int = 0
    local_steps: int = 0


class Servers:
    """All servers of a run by name; a local one exists from its first commit, starting where the global one did.

    `origin` tells where an update that is committed to the global server began, or None; without `real` training,
    nothing is known of any distance.
    """

    def __init__(self, params: Params, origin: Callable[[Update], Optional[Params]], real: bool) -> None:
        params.versions = {GLOBAL: 0}
        self.initial = params
        self._origin = origin
        self.main = Server(params)
        self._servers = {GLOBAL: self.main}
        self._real = real
        self._distances = Distances()
        self._moments = array("d")  # of each version of the global model but the first

    def version_at(self, time: float) -> int:
        """Return the version that the global model had when all that happened at `time` had."""
        return bisect_right(self._moments, time)

    def local(self) -> list[tuple[str, Params]]:
        """Return the models of all other servers, by name, in the order of their first commits."""
        return [(name, server.params) for name, server in self._servers.items() if name != GLOBAL]

    def commit(
        self, name: str, params: Params, contributions: Iterable[Union[Update, Contribution]], time: float
    ) -> Commit:
        """Make `params` the model of server `name`; return the record. Raises TypeError for a lone contribution."""
        if isinstance(contributions, (Update, Contribution)):
            raise TypeError("contributions are a list, also when there is one")
        state = self._servers.get(name)
        if state is None:
            state = self._servers[name] = Server(self.initial)
        shares = tuple([self._share(contribution, name, state, time) for contribution in contributions])
        if shares:
            state.version += 1
            if name == GLOBAL:
                self._moments.append(time)
        for share in shares:
            state.local_steps += share.steps
        norm = step = math.nan
        if self._real:
            norm, step = params.norm(), self._distances.between(state.params, params)
            self._distances.forget()
        state.params = params
        known = params.versions  # mostly none, and to unpack that view of no dictionary would take its time
        params.versions = {name: state.version} if known is NO_VERSIONS else {**known, name: state.version}
        kind = "update" if shares else "merge"
        return Commit(time, state.version, name, kind, state.local_steps, shares, params, norm, step)

    def _share(self, contribution: Union[Update, Contribution], name: str, state: Server, time: float) -> Share:
        version: Optional[int] = None
        if isinstance(contribution, Update):
            updates: tuple[Update, ...] = (contribution,)
            base, target = contribution.start, state.params
            if name == GLOBAL:  # as it was at the dispatch, whatever became of `base` since
                version = contribution.global_version  # `start_version` may be another server's
            elif GLOBAL not in base.versions and name in base.versions:
                version = contribution.start_version
        else:
            updates, base, target = tuple(contribution.updates), contribution.base, contribution.target
            version = contribution.from_version
        if version is None:
            version = base.versions.get(name)
        if version is None:
            several = [update.global_version if name == GLOBAL else update.start_version for update in updates]
            version = min([*several, state.version])  # what counts another server's versions may be beyond its own
        # The whole ways first: an update without its tensors may have begun from the base, and origins know it.
        ways = () if name != GLOBAL else tuple([self._way(update, time) for update in updates])
        drift = self._distances.between(base, target) if self._real else math.nan
        return Share(updates, version, state.version - version, drift, base, target, ways)

    def _way(self, update: Update, time: float) -> EndToEnd:
        """An update's whole way, to the global model as it is before it takes it in."""
        start = self._origin(update) if self._real else None
        drift = math.nan if start is None else self._distances.between(start, self.main.params)
        return EndToEnd(self.main.version - update.global_version, time - update.start_time, drift)


class Distances:
    """Distances between parameters, each worked out once a commit; NaN for what is gone.

    In a replay, where all parameters are hollow, the numbers are those of the run that is replayed.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], float] = {}

    def between(self, one: Params, other: Params) -> float:
        """Return ‖one − other‖₂."""
        if one.serial == other.serial:
            return 0.0
        pair = one.serial, other.serial
        known = self._known.get(pair)
        if known is None:
            known = one.distance(other)
            if known == known:  # of a shell nothing is known; of whoever it stands for it may be
                self._known[pair] = known
        return known

    def forget(self) -> None:
        """The commit is over."""
        self._known.clear()
