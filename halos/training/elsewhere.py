"""What becomes of a job in another process when it is no outcome: an error on its way, or lost with that process."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from halos.training import Job


class Elsewhere(Exception):
    """The traceback of an error in another process; the cause of that error here."""

    def __str__(self) -> str:
        return f"\n{super().__str__()}"


def portable(error: BaseException, pickler: Any = pickle) -> BaseException:
    """Return the error as it is on the other side; one that cannot get there (by `dumps` and `loads`), in its words."""
    try:
        copy = pickler.loads(pickler.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def in_hand(jobs: Iterable[Job]) -> str:
    """Return words for the jobs that a process had when it died; empty if it had none."""
    each = " and ".join(f"job {job.id} of worker {job.worker}" for job in jobs)
    return f" with {each} in hand" if each else ""
