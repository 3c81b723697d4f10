"""Jobs that wait to be computed elsewhere: those whose results are asked for first come first, few beyond them."""

from __future__ import annotations

from bisect import bisect_left, insort

from halos.training import Job


class Agenda:
    """Which jobs are to be given away next; to whom, and how they get there, is left to others.

    A job waits, is given to somebody, and taken when its result is; what is given to one who dies waits again.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, Job] = {}  # by id, given to nobody
        self._order: list[tuple[float, int]] = []  # of these, (due, id), sorted
        self._given = 0  # or computed, and not taken

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self.waiting[job.id] = job
        insort(self._order, (job.due, job.id))

    def withdraw(self, job: Job) -> bool:
        """Forget a job that waits; whether there is such a one."""
        waiting = self.waiting.pop(job.id, None)
        if waiting is not None:
            del self._order[bisect_left(self._order, (waiting.due, waiting.id))]
        return waiting is not None

    def upcoming(self, ahead: int) -> list[Job]:
        """Return what may be given away now, in this order, if so many at most are to be given and not taken."""
        return [self.waiting[id] for _, id in self._order[: max(0, ahead - self._given)]]

    def give(self, job: Job) -> None:
        """A job that waits is given to somebody."""
        self.withdraw(job)
        self._given += 1

    def take_back(self, job: Job) -> None:
        """A job that was given to somebody waits again."""
        self._given -= 1
        self.add(job)

    def take(self) -> None:
        """The result of a job that was given to somebody is taken."""
        self._given -= 1
