"""A job's course: when it begins, computes and ends, as planned at its dispatch. Faults are others' matter."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from halos.world.cluster import Worker
from halos.world.compute import ComputeModel


class Loss(NamedTuple):
    """When (virtual seconds) something was lost, and why; whether it was a message rather than a worker."""

    at: float
    why: str
    message: bool = False


class Course(NamedTuple):
    """A job under way: the moment it began and how long each of its parts takes, in virtual seconds.

    Pull and push are 0 without a server. A job with a `loss` ends in that, `told` seconds after it began; it is
    `trained` if its worker has done the work nevertheless, and only the message was lost.
    """

    began: float
    pull: float
    compute: float
    push: float
    tie: float = 0.0  # by which equal round trips of different workers differ
    loss: Optional[Loss] = None
    told: float = 0.0
    trained: bool = True

    @property
    def computes(self) -> float:
        """The moment from which it computes."""
        return self.began + self.pull

    @property
    def until(self) -> float:
        """The moment until which it computes."""
        return self.began + self.pull + self.compute

    @property
    def seconds(self) -> float:
        """From its beginning until whoever awaits it is told of its update, or of its loss."""
        return self.pull + self.push + self.compute + self.tie if self.loss is None else self.told

    @property
    def moments(self) -> tuple[float, float, float, float]:
        """When it begins, computes from and until, and is lost (not before it began); infinite: it is not."""
        lost = math.inf if self.loss is None else max(self.began, self.loss.at)
        return self.began, self.computes, self.until, lost


def plan(
    compute: ComputeModel, worker: Worker, steps: int, job: int, began: float, pull: float, push: float, tie: float
) -> Course:
    """Return the course of job `job` of `worker`, with a pull and a push around it that take so many seconds."""
    return Course(began, pull, compute.seconds(worker, steps, began + pull, job), push, tie)
