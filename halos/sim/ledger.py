"""The ledger: every trained step is committed, dropped or in flight, and none is counted twice."""

from __future__ import annotations

from collections.abc import Iterable

from halos.values.records import Update


class Ledger:
    """Counts local steps by what became of them."""

    def __init__(self) -> None:
        self.trained = 0
        self.committed = 0
        self.dropped = 0
        self.lost = 0  # dispatched, but the job never arrived: not among the trained
        self.dropped_seconds = 0.0  # of computing what was dropped
        self._undelivered: set[int] = set()  # updates whose message was lost
        # By update id, of what is neither committed nor dropped: steps, and the seconds of computing them.
        self._open: dict[int, tuple[int, float]] = {}

    @property
    def in_flight(self) -> int:
        """Local steps trained, but neither committed nor dropped."""
        return sum([steps for steps, _ in self._open.values()])

    @property
    def undelivered(self) -> int:
        """Local steps in flight whose message was lost, and that have not been committed or dropped since."""
        return sum([self._open[id][0] for id in self._undelivered])

    @property
    def pending_seconds(self) -> float:
        """Seconds of computing what is in flight, but the undelivered."""
        return sum([seconds for id, (_, seconds) in self._open.items() if id not in self._undelivered])

    def outstanding(self, update: int) -> bool:
        """Return whether an update (by id) has arrived and is neither committed nor dropped."""
        return update in self._open

    def miss(self, update: Update) -> None:
        """Note that the update's message was lost: it is undelivered until it is committed or dropped."""
        self._undelivered.add(update.id)

    def add(self, update: Update) -> None:
        """Count the steps of an update that has arrived as trained."""
        self.trained += update.steps
        self._open[update.id] = update.steps, update.compute[1] - update.compute[0]

    def commit(self, updates: Iterable[Update]) -> None:
        """Count the updates' steps as committed. Raises RuntimeError for one that was committed or dropped before."""
        self.committed += self._settle(updates, "committed")[0]

    def drop(self, updates: Iterable[Update]) -> None:
        """Count the updates' steps as dropped. Raises RuntimeError for one that was committed or dropped before."""
        steps, seconds = self._settle(updates, "dropped")
        self.dropped += steps
        self.dropped_seconds += seconds

    def _settle(self, updates: Iterable[Update], what: str) -> tuple[int, float]:
        """Return how many steps these are, and the seconds of computing them."""
        steps, seconds = 0, 0.0
        for update in updates:
            opened = self._open.pop(update.id, None)
            if opened is None:
                raise RuntimeError(
                    f"update {update.id} of worker {update.worker} is {what}, but it was committed or dropped before"
                )
            steps += opened[0]
            seconds += opened[1]
            if self._undelivered:
                self._undelivered.discard(update.id)
        return steps, seconds
