"""Servers: the models that are committed to, their versions, and how stale what they take in is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional, Union

from halos.values.params import Params
from halos.values.records import Commit, Contribution, Share, Update

GLOBAL = "global"


@dataclass
class Server:
    """A model that is committed to: its last parameters, version, and local steps so far."""

    params: Params
    version: int = 0
    local_steps: int = 0


class Servers:
    """All servers of a run by name; a local one exists from its first commit, starting where the global one did."""

    def __init__(self, params: Params) -> None:
        params.versions = {GLOBAL: 0}
        self.initial = params
        self.main = Server(params)
        self._servers = {GLOBAL: self.main}

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
        shares = tuple([self._share(contribution, name, state) for contribution in contributions])
        if shares:
            state.version += 1
        for share in shares:
            state.local_steps += share.steps
        state.params = params
        params.versions = {**params.versions, name: state.version}
        return Commit(time, state.version, name, "update" if shares else "merge", state.local_steps, shares, params)

    def _share(self, contribution: Union[Update, Contribution], name: str, state: Server) -> Share:
        version: Optional[int] = None
        if isinstance(contribution, Update):
            updates: tuple[Update, ...] = (contribution,)
            base, target = contribution.start, state.params
            if name == GLOBAL or GLOBAL not in base.versions:
                version = contribution.start_version  # as it was at the dispatch, whatever became of `base` since
        else:
            updates, base, target = tuple(contribution.updates), contribution.base, contribution.target
            version = contribution.from_version
        if version is None:
            version = base.versions.get(name)
        if version is None:
            version = min([update.start_version for update in updates], default=state.version)
        drift = 0.0 if base is target else base.distance(target)
        return Share(updates, version, state.version - version, drift)
