"""The training losses of one job: whether they are finite, and their means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from halos.errors import Diverged

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_FIRST = 4096  # losses of a job for which there is room


class Losses:
    """The training losses of a job's steps, which stay on their device until the job is over."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self._values = torch.zeros(min(steps, AT_FIRST), dtype=torch.float32, device=device)
        self._count = 0

    @classmethod
    def of(cls, values: torch.Tensor) -> Losses:
        """Return the losses [steps] of a job that is over."""
        losses = cls(0, values.device)
        losses._values, losses._count = values, len(values)
        return losses

    def add(self, loss: torch.Tensor) -> None:
        """Add the loss of one more step, a scalar tensor."""
        if self._count == len(self._values):
            self._values = torch.cat([self._values, torch.zeros_like(self._values)])
        self._values[self._count] = loss
        self._count += 1

    def check(self, where: Callable[[int], str], upto: Optional[int] = None) -> NDArray[np.float32]:
        """Return them so far, or those of the first `upto` steps.

        Raises Diverged for the first that is not finite; `where(step)` says which that was.
        """
        values: NDArray[np.float32] = self._values[: self._count][:upto].cpu().numpy()
        for step, loss in enumerate(values.tolist(), start=1):
            if not math.isfinite(loss):
                raise Diverged(f"training loss became {loss}: {where(step)}")
        return values

    def averaged(self, every: int, where: Callable[[int], str]) -> tuple[tuple[float, ...], tuple[int, ...], float]:
        """Return means over chunks of `every` steps (and the rest), the chunks' lengths, and the mean over all steps.

        That last one, and whether it is Diverged, do not depend on `every`: a chunk, summed in fp32 as upstream does,
        may overflow. Raises what `check` does.
        """
        values = self.check(where)
        parts = [values[first : first + every] for first in range(0, len(values), every)]
        with np.errstate(over="ignore"):
            means = tuple(float(np.cumsum(part, dtype=np.float32)[-1]) / len(part) for part in parts)  # one by one
        return means, tuple(map(len, parts)), math.fsum(values.tolist()) / len(values)
