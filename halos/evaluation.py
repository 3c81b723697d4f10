"""When to evaluate the global model: at the start, at intervals of committed steps, at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from halos.data import DataSource
from halos.errors import ConfigError, require


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
