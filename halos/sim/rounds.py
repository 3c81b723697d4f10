"""Rounds: opened or refused once, for all workers, however far apart these are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from halos.errors import UserError
from halos.seeds import generator
from halos.sim.ledger import Ledger
from halos.sim.lr_clock import LrClock, LrStep
from halos.values.rounding import rounded
from halos.world.cluster import Worker


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
    chosen: Optional[tuple[int, ...]] = None  # the ids of those who take part, in order; None: all

    @property
    def members(self) -> tuple[int, ...]:
        """The ids of the workers that take part, in order."""
        return tuple(range(len(self.steps))) if self.chosen is None else self.chosen

    def lr_step_of(self, worker: Worker) -> Optional[int]:
        """Return the learning-rate steps before it of one worker; None: each job's own."""
        return self.lr_step[worker.id] if isinstance(self.lr_step, tuple) else self.lr_step

    def among(self, *workers: Worker) -> Round:
        """Return this round as it is for `workers` who average with each other only, and so are weighed together."""
        return replace(self, chosen=tuple(sorted(worker.id for worker in workers)))


def same_steps(steps: Sequence[int], policy: str) -> int:
    """Return the local steps of every worker in a round, where a policy, of that name, needs them to be the same.

    To be asked of each round, since an allocation may go by what workers have shown so far. Raises UserError.
    """
    if len(set(steps)) > 1:
        wanted = f"{policy} needs the same for all: steps: {{name: fixed, base: …}}"
        raise UserError(f"workers take {min(steps)} to {max(steps)} local steps; {wanted}")
    return steps[0]


class Rounds:
    """The rounds of a run, planned from the steps its workers are to take in each."""

    def __init__(
        self,
        steps: Callable[[], list[int]],
        clock: LrClock,
        spent: Callable[[float, float], bool],
        ledger: Ledger,
        seed: int,
    ) -> None:
        self._steps = steps  # of every worker, in the round about to be opened
        self._clock = clock
        self._spent = spent  # whether so many local steps, committed and trained, make up the budget
        self._ledger = ledger
        self._seed = seed  # the run's
        self._rounds: list[Optional[Round]] = []
        self._planned = [0]  # local steps before every round opened, and of all of them
        self._skipped = 0  # of these, those of whom it was said that they take no part

    @property
    def opened(self) -> bool:
        """Whether anybody asked for one."""
        return bool(self._rounds)

    @property
    def closed(self) -> bool:
        """Whether a round was refused."""
        return bool(self._rounds) and self._rounds[-1] is None

    def each(self, spent: Callable[[], float], fraction: float = 1.0) -> Iterator[Round]:
        """Yield the rounds from the first on, until one is refused: `spent()` or planned steps make up the budget.

        Of these steps, lost and skipped ones count for nothing, and dropped or undelivered ones as trained (and for
        learning rates), not as committed. In each the same `fraction` of the workers takes part, at least one, drawn
        anew.
        """
        index = 0
        while (current := self._at(index, spent, fraction)) is not None:
            yield current
            index += 1

    def skip(self, round: Round, worker: Worker) -> None:
        """Plan without what `worker` was to do in `round`."""
        self._skipped += round.steps[worker.id]

    def _at(self, index: int, spent: Callable[[], float], fraction: float) -> Optional[Round]:
        if index == len(self._rounds):
            before = max(self._planned[-1] - self._skipped, spent()) - self._ledger.lost
            if self._spent(before - self._ledger.dropped - self._ledger.undelivered, before):
                self._rounds.append(None)
            else:
                steps = self._steps()
                chosen = self._chosen(index, len(steps), fraction)
                taken = steps if chosen is None else [steps[worker] for worker in chosen]
                # Learning rates go by whole rounds: one that lost jobs is repeated by what makes up for it.
                whole = self._planned[bisect_right(self._planned, before) - 1]
                lr_step = self._clock.round(taken, whole, shared=chosen is not None)
                self._rounds.append(Round(index, lr_step, tuple(steps), chosen))
                self._planned.append(self._planned[-1] + sum(taken))
        return self._rounds[index]

    def _chosen(self, index: int, workers: int, fraction: float) -> Optional[tuple[int, ...]]:
        """Who takes part in a round, drawn by the run's seed; None: all."""
        count = max(1, rounded(fraction * workers))
        if count >= workers:
            return None
        drawn = generator(self._seed, "participants", index).choice(workers, count, replace=False)
        return tuple(sorted(drawn.tolist()))
