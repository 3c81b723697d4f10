"""The learning-rate clock: learning-rate steps by the data that was dispatched, going back for nobody."""

from __future__ import annotations

from typing import Optional, Union

LrStep = Union[int, tuple[int, ...], None]


class LrClock:
    """Counts samples in global batches. What was lost does not count, and is made up for at the rates it had."""

    def __init__(self, batch_size: int, global_batch_size: int) -> None:
        self._batch_size = batch_size
        self._global_batch_size = global_batch_size
        self._latest = 0  # the latest learning-rate step that a round began with, or a job of its own
        self._of: dict[int, int] = {}  # by worker: that of its latest job

    def job(self, worker: int, samples: int, given: Optional[int] = None) -> int:
        """Return the learning-rate step of a worker's job that begins after `samples`, unless one is `given`."""
        step = given
        if step is None:
            step, before = samples // self._global_batch_size, self._of.get(worker, 0)
            if before > step:
                step = before
            if step > self._latest:
                self._latest = step
        self._of[worker] = step
        return step

    def round(self, steps: list[int], before: int, shared: bool = False) -> LrStep:
        """Return the learning-rate step of a round of these `steps`, by worker, that begins after `before` local steps.

        It is the same for all; but as in the original, a multiple of a round's steps, which differs between workers
        where the global batch is not all their batches, unless it must be `shared`. None (each job's own) if they take
        unequal steps.
        """
        if any(count != steps[0] for count in steps):
            return None
        samples, first = steps[0] * self._batch_size, before * self._batch_size
        if shared or before % (steps[0] * len(steps)):  # or rounds had other steps before
            step = max(self._latest, first // self._global_batch_size)
            self._latest = step
            return step
        clocks = [(first + worker * samples) // self._global_batch_size for worker in range(len(steps))]
        rounded = tuple([max(self._latest, clock - clock % steps[0]) for clock in clocks])
        self._latest = max(rounded)
        return rounded[0] if len(set(rounded)) == 1 else rounded
