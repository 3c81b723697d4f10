"""Groups: the runs that differ in their seed only, and what tells one group from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halos.reading import Run


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    label: str  # what tells it from the other groups, for example `DiLoCo, fixed`
    values: dict[str, str]  # the same, by key
    runs: dict[int, Run]  # by seed, ascending
