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
        """Trained, but neither committed nor dropped."""
        return sum(self._open.values())

    @property
    def undelivered(self) -> int:
        """Of these, what was not delivered so far."""
        return sum(self._open[each] for each in self._undelivered)

    def miss(self, update: Update) -> None:
        """Its message was lost."""
        self._undelivered.add(update.id)

    def add(self, update: Update) -> None:
        """An update has arrived."""
        self.trained += update.steps
        self._open[update.id] = update.steps

    def commit(self, updates: Iterable[Update]) -> None:
        """Its steps are in the global model, and nothing of it is outstanding."""
        self.committed += self._settle(updates, "committed")

    def drop(self, updates: Iterable[Update]) -> None:
        """It will never be used."""
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
