"""How old a contribution is: versions, seconds, and local steps merged meanwhile; which follows from records alone."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Optional

from halos import Commit, EndToEnd, Params, Share, Update

from .measures import tree_distance

REMEMBERED = 256  # of a worker's updates, the latest so many: how many steps its base may be from the server's branch


@dataclass
class Line:
    """A server's versions: how many local steps each contains of its own commits, and what it took over in between."""

    steps: list[int] = field(default_factory=lambda: [0])  # S, by version
    before: list[int] = field(default_factory=lambda: [0])  # by version: how many commits of nothing new came before it
    taken: dict[int, int] = field(
        default_factory=dict
    )  # by serial number of what such a commit made: its place, from 1
    latest: list[int] = field(default_factory=list)  # of each such commit, the highest of these serial numbers so far

    def merged_since(self, base: Params, version: Optional[int]) -> int:
        """Return how many commits of nothing new there were since `base`; None: it is no version, of any age.

        A model that a server takes over may be older than the one that it had.
        """
        if version is None:
            return len(self.latest) - bisect_right(self.latest, base.serial)
        return len(self.latest) - self.taken.get(base.serial, self.before[min(version, len(self.before) - 1)])


@dataclass
class Own:
    """An update as one of its worker's."""

    steps: int
    versions: dict[str, int] = field(default_factory=dict)  # by server, the version that took it in


@dataclass(frozen=True)
class Age:
    """Of a contribution, or of one of its updates on its whole way."""

    versions: int  # of its server since the base
    seconds: float  # simulated, since the (first) dispatch
    steps: int  # merged into the target since the base, or since their last common ancestor
    merges: Optional[int]  # commits of nothing new meanwhile: what they brought is not among the steps
    ancestor: bool  # whether the base is an earlier version of the server
    tree_distance: Optional[int]  # R


class Ages:
    """Hears of updates and commits, in replays too, and says how old the shares of a commit are."""

    def __init__(self, initial: int) -> None:
        """The serial number of the parameters that every server begins from."""
        self._initial = initial
        self._lines: dict[str, Line] = {}
        self._own: dict[int, OrderedDict[int, Own]] = {}  # by worker and update

    def update(self, update: Update) -> None:
        """An update has arrived."""
        own = self._own.setdefault(update.worker, OrderedDict())
        own[update.id] = Own(update.steps)
        if len(own) > REMEMBERED:
            own.popitem(last=False)

    def commit(self, commit: Commit) -> None:
        """A commit has been looked at, and is over."""
        line = self._line(commit.server)
        if not commit.shares:
            serial = commit.params.serial
            line.latest.append(max([serial, *line.latest[-1:]]))
            line.taken[serial] = len(line.latest)
            return
        line.steps.append(commit.local_steps)
        line.before.append(len(line.latest))
        for share in commit.shares:
            for update in share.updates:
                own = self._own.get(update.worker, {}).get(update.id)
                if own is not None:
                    own.versions[commit.server] = commit.version

    def hop(self, commit: Commit, share: Share, earlier: int) -> Age:
        """A share's age, after `earlier` local steps of the same commit."""
        line, server = self._line(commit.server), commit.server
        target = self._version(share.target, server)
        now = line.steps[-1 if target is None else min(target, len(line.steps) - 1)]
        same = share.base.serial == share.target.serial
        version = self._version(share.base, server)
        seconds = commit.time - min([update.start_time for update in share.updates], default=commit.time)
        ancestor, apart = same or version is not None, 0 if same or version is not None else self._apart(share, server)
        # A model that was committed again as it was is a later version than the one that its workers began from.
        base = share.from_version if version is None else min(share.from_version, version)
        since = 0 if same and version is None else now - line.steps[min(base, len(line.steps) - 1)]
        merges = 0 if same else line.merged_since(share.base, version)
        distance = None if apart is None else tree_distance(since, earlier, share.steps, apart)
        return Age(share.hop_staleness, seconds, since, merges, ancestor, distance)

    def way(self, commit: Commit, update: Update, way: EndToEnd, earlier: int) -> Age:
        """An update's age on its whole way to the global model, after `earlier` local steps of the same commit.

        R is not known where its worker began from something else than a global model.
        """
        line, server = self._line(commit.server), commit.server
        ancestor = self._version(update.start, server) is not None
        since = line.steps[-1] - line.steps[min(update.global_version, len(line.steps) - 1)]
        distance = tree_distance(since, earlier, update.steps) if ancestor else None
        return Age(way.staleness, way.seconds, since, None, ancestor, distance)

    def _line(self, server: str) -> Line:
        return self._lines.setdefault(server, Line())

    def _version(self, params: Params, server: str) -> Optional[int]:
        """Which version of a server these parameters are; None if they are none."""
        return params.versions.get(server, 0 if params.serial == self._initial else None)

    def _apart(self, share: Share, server: str) -> Optional[int]:
        """Local steps in a base that is no version, and not in `from_version`: its worker's own so far.

        None if it is not one worker's.
        """
        workers = {update.worker for update in share.updates}
        if len(workers) != 1:
            return None
        first, steps = min(update.id for update in share.updates), 0
        for id, own in reversed(self._own.get(min(workers), {}).items()):
            if id < first:
                if own.versions.get(server, share.from_version + 1) <= share.from_version:
                    break  # and so are all before it
                steps += own.steps
        return steps
