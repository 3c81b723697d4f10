"""fp16's loss scale along the steps of one job: which of them it made worthless."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch


class Scales:
    """The loss scale before a job's steps and after each, which stay on their device until the job is over.

    In another precision there is none, and nothing is noted.
    """

    def __init__(self, scaler: torch.amp.GradScaler, device: torch.device) -> None:
        self._scaler = scaler
        self._one = torch.ones((), device=device) if scaler.is_enabled() else None
        self._values: list[torch.Tensor] = []
        self.note()

    def note(self) -> None:
        """Note it as it is now. To ask the scaler for a number would be to wait for all that a GPU was given to do."""
        if self._one is not None:
            self._values.append(self._scaler.scale(self._one))

    def lowered(self) -> Iterator[tuple[int, float]]:
        """Yield the steps (the first is 1) that were left out, since gradients were too large, and the scale after."""
        values = torch.stack(self._values).tolist() if self._values else []
        for step, (before, after) in enumerate(pairwise(values), start=1):
            if after < before:
                yield step, after
