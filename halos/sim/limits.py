"""The budget: when a run has had enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Optional

from halos.data import DataSource
from halos.errors import ConfigError, positive, require
from halos.sim.clock import Deadlock


@dataclass
class BudgetOptions:
    """`budget:`, of which whichever comes first ends the run; at least one must be given.

    `local_steps` and `tokens` count what the global server has committed (the commit that crosses
    counts whole), `simulated_hours` ends the run at that very moment, `target_loss` at the first
    validation loss at or below it.
    """

    local_steps: Optional[int] = None
    tokens: Optional[int] = None
    simulated_hours: Optional[float] = None
    target_loss: Optional[float] = None

    def __post_init__(self) -> None:
        if all(each is None for each in (self.local_steps, self.tokens, self.simulated_hours, self.target_loss)):
            raise ConfigError("", "empty; give local_steps, tokens, simulated_hours or target_loss")
        for key in ("local_steps", "tokens", "simulated_hours"):
            value = getattr(self, key)
            require(value is None or positive(value), key, value, "a positive number")
        if self.target_loss is not None:
            require(math.isfinite(self.target_loss), "target_loss", self.target_loss, "a finite number")

    def steps(self, tokens_per_step: int) -> float:
        """Local steps after which it is spent; infinite if neither steps nor tokens limit it."""
        by_tokens = math.inf if self.tokens is None else math.ceil(self.tokens / tokens_per_step)
        return min(math.inf if self.local_steps is None else self.local_steps, by_tokens)

    @property
    def seconds(self) -> float:
        """Virtual seconds after which it is spent."""
        return math.inf if self.simulated_hours is None else self.simulated_hours * 3600.0


@dataclass
class EvaluateOptions:
    """`evaluate:`; `sets` are evaluated beside the data's own held-out tail (`validation`)."""

    every_local_steps: Optional[int] = None  # committed steps; null: only at the start and the end
    sets: dict[str, DataSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every = self.every_local_steps
        require(every is None or every >= 1, "every_local_steps", every, "a positive number of steps, or null")
        if "validation" in self.sets:
            raise ConfigError("sets.validation", "is the name of the data's own held-out tail; choose another")


class Schedule:
    """Counts committed steps; as upstream does, the counter falls back to a multiple of the interval."""

    def __init__(self, every: Optional[int]) -> None:
        self._every = every
        self._last = 0

    def due(self, local_steps: int) -> bool:
        """Whether `local_steps` committed so far make an evaluation due (and note that it is made)."""
        if self._every is None or local_steps - self._last < self._every:
            return False
        self._last = local_steps // self._every * self._every
        return True


class Hopeless(Deadlock):
    """Faults let nothing be done any more, or nothing arrive."""
