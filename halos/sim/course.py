"""A job's course: when it begins, computes and ends, as planned at its dispatch. Faults are others' matter."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

from msgspec import Struct
from msgspec.structs import replace

from halos.world.cluster import Worker
from halos.world.compute import ComputeModel


class Loss(NamedTuple):
    """When (virtual seconds) something was lost, and why; whether it was a message rather than a worker."""

    at: float
    why: str
    message: bool = False


class Course(Struct, frozen=True, gc=False):
    """A job under way: its moments, and how long two of its parts take, in virtual seconds.

    Pull and push take no time without a server. A job with a `loss` ends in that; it is `trained` if its worker has
    done the work nevertheless, and only the message was lost.
    """

    began: float
    computes: float  # from this moment
    until: float  # that moment; then it pushes
    ends: float  # when whoever awaits it is told of its update, or of its loss
    compute: float  # seconds that it computes
    push: float  # seconds that it pushes
    tie: float = 0.0  # seconds by which equal round trips of different workers differ
    loss: Optional[Loss] = None
    trained: bool = True
    steps: int = 0  # local ones

    @property
    def moments(self) -> tuple[float, float, float, float]:
        """When it begins, computes from and until, and is lost (not before it began); infinite: it is not."""
        lost = math.inf if self.loss is None else max(self.began, self.loss.at)
        return self.began, self.computes, self.until, lost

    def _replace(self, **changes: Any) -> Course:
        return replace(self, **changes)

    def pulling_until(self, computes: float, compute: float) -> Course:
        """Return it with a pull that is over at `computes`, and `compute` seconds of work from then on."""
        until = computes + compute
        return self._replace(computes=computes, until=until, ends=until + self.push + self.tie, compute=compute)

    def pushing_until(self, arrives: float) -> Course:
        """Return it with a push that is over at `arrives`."""
        return self._replace(ends=arrives + self.tie, push=arrives - self.until)


def plan(
    compute: ComputeModel, worker: Worker, steps: int, job: int, began: float, pull: float, push: float, tie: float
) -> Course:
    """Return the course of job `job` of `worker`, with a pull and a push around it that take so many seconds.

    It ends after the sum of all its parts, as in the original: not quite the moments one after the other.
    """
    computes = began + pull
    seconds = compute.seconds(worker, steps, computes, job)
    ends = began + (pull + push + seconds + tie)
    return Course(began, computes, computes + seconds, ends, seconds, push, tie, None, True, steps)
