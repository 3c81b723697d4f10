"""A GPT-NeoX network's size, known without building it (and without PyTorch)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Dimensions:
    """A network's size, once everything is decided."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int


class Shape(Protocol):
    """The rest that decides what a network computes; any configuration that has these will do."""

    @property
    def rotary_pct(self) -> float: ...
    @property
    def rotary_base(self) -> float: ...
    @property
    def layer_norm_eps(self) -> float: ...
    @property
    def parallel_residual(self) -> bool: ...


def rotary_pairs(head_size: int, fraction: float) -> int:
    """How many pairs of a head's dimensions are rotated."""
    return math.ceil(int(head_size * fraction) / 2)
