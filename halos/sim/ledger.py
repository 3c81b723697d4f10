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
        self._undelivered: set[int] = set()  # updates whose message was lost
        self._open: dict[int, int] = {}  # update id → steps, of what is neither committed nor dropped

    @property
    def in_flight(self) -> int:
        """Local steps trained, but neither committed nor dropped."""
        return sum(self._open.values())

    @property
    def undelivered(self) -> int:
        """Local steps in flight whose message was lost, and that have not been committed or dropped since."""
        return sum(self._open[id] for id in self._undelivered)

    def outstanding(self, update: int) -> bool:
        """Return whether an update (by id) has arrived and is neither committed nor dropped."""
        return update in self._open

    def miss(self, update: Update) -> None:
        """Note that the update's message was lost: it is undelivered until it is committed or dropped."""
        self._undelivered.add(update.id)

    def add(self, update: Update) -> None:
        """Count the steps of an update that has arrived as trained."""
        self.trained += update.steps
        self._open[update.id] = update.steps

    def commit(self, updates: Iterable[Update]) -> None:
        """Count the updates' steps as committed. Raises RuntimeError for one that was committed or dropped before."""
        self.committed += self._settle(updates, "committed")

    def drop(self, updates: Iterable[Update]) -> None:
        """Count the updates' steps as dropped. Raises RuntimeError for one that was committed or dropped before."""
        self.dropped += self._settle(updates, "dropped")

    def _settle(self, updates: Iterable[Update], what: str) -> int:
        steps = 0
        for update in updates:
            if update.id not in self._open:
                raise RuntimeError(
                    f"update {update.id} of worker {update.worker} is {what}, but it was committed or dropped before"
                )
            steps += self._open.pop(update.id)
            self._undelivered.discard(update.id)
        return steps
