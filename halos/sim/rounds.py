"""Rounds: opened or refused once, for all workers, however far apart these are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional, Union

from halos.sim.ledger import Ledger

LrStep = Union[int, tuple[int, ...], None]


@dataclass(frozen=True)
class Round:
    """One round that may be opened: the same for every worker, whenever each gets there.

    `steps` are the local steps of every worker, as planned when the round was opened. `lr_step` is one
    number if all workers share it, one per worker if `global_batch_size` makes them differ, None (each
    job's own) if they take unequal steps. `train(worker, start, round=r)` takes both from here.
    """

    index: int  # from 0 on
    lr_step: LrStep  # learning-rate steps before it: of all, of each worker, or None
    steps: tuple[int, ...]  # of every worker

    @property
    def mean_steps(self) -> float:
        """Mean local steps of a worker, against which `weights:` weighs unequal contributions."""
        return sum(self.steps) / len(self.steps)


class Rounds:
    """The rounds of a run, planned from the steps its workers are to take in each."""

    def __init__(
        self,
        steps: Callable[[], list[int]],
        batch_size: int,
        global_batch_size: int,
        spent: Callable[[float], bool],
        ledger: Ledger,
    ) -> None:
        self._steps = steps  # of every worker, in the round about to be opened
        self._batch_size = batch_size
        self._global_batch_size = global_batch_size
        self._spent = spent  # whether so many local steps make up the budget
        self._ledger = ledger
        self._rounds: list[Optional[Round]] = []
        self._planned = 0  # local steps of all rounds opened

    @property
    def closed(self) -> bool:
        """Whether a round was refused."""
        return bool(self._rounds) and self._rounds[-1] is None

    def each(self, spent: Callable[[], float]) -> Iterator[Round]:
        """Yield the rounds from the first on, until one is refused: `spent()` or planned steps make up the budget.

        Of these steps, lost ones count for nothing, and dropped or undelivered ones only for learning rates.
        """
        index = 0
        while (current := self._at(index, spent)) is not None:
            yield current
            index += 1

    def _at(self, index: int, spent: Callable[[], float]) -> Optional[Round]:
        if index == len(self._rounds):
            before = max(self._planned, spent()) - self._ledger.lost
            if self._spent(before - self._ledger.dropped - self._ledger.undelivered):
                self._rounds.append(None)
            else:
                steps = self._steps()
                self._rounds.append(Round(index, self._lr_step(steps, int(before)), tuple(steps)))
                self._planned += sum(steps)
        return self._rounds[index]

    def _lr_step(self, steps: list[int], before: int) -> LrStep:
        """Learning-rate steps after `before` local steps, rounded down to a multiple of a round's steps.

        None if these differ between workers.
        """
        if any(count != steps[0] for count in steps):
            return None
        samples = steps[0] * self._batch_size
        first = before * self._batch_size
        clocks = [(first + worker * samples) // self._global_batch_size for worker in range(len(steps))]
        rounded = tuple(clock - clock % steps[0] for clock in clocks)
        return rounded[0] if len(set(rounded)) == 1 else rounded
