"""fp16's loss scale along the steps of one job: what it is a scale of, and which steps it made worthless."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Optional

import torch


class Scaled:
    """A vector of gradients as torch's GradScaler wants to be shown it: an optimizer's, that has a step."""

    found_inf: Optional[torch.Tensor] = None  # the scaler's, while it asks for a step, not to be taken if this is 1

    def __init__(
        self, params: torch.Tensor, grad: torch.Tensor, step: Callable[..., None], may_not_be_taken: bool
    ) -> None:
        """Steps are taken by `step`, given whatever the scaler is and `found_inf`.

        If they `may_not_be_taken`, that is theirs to see to; else the scaler waits to know and asks for none.
        """
        vector = torch.nn.Parameter(params)
        vector.grad = grad
        self.param_groups = [{"params": [vector]}]
        self._take = step
        self._step_supports_amp_scaling = may_not_be_taken

    def step(self, *arguments: Any) -> None:
        """Called by the scaler."""
        self._take(*arguments, self.found_inf)


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
