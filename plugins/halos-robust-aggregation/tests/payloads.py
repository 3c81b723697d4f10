"""Payloads of a few numbers, and rules by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import halos_robust_aggregation
import numpy as np
import torch

from halos import Layout, Mean, Params, Payload

TENSORS = Layout({"matrix": (2, 2), "bias": (3,)}, torch.float64)  # 7 numbers
RULES: dict[str, Any] = {"mean": Mean}
halos_robust_aggregation.register_aggregators(RULES.__setitem__)


def rule(name: str, **options: Any) -> Any:
    """An aggregator."""
    return RULES[name](**options)


def payloads(rows: Any, layout: Optional[Layout] = None, weights: Optional[Sequence[float]] = None) -> list[Payload]:
    """One payload for each row of numbers; of one tensor unless there is a layout."""
    several = torch.tensor(np.array(rows), dtype=torch.float64).reshape(len(rows), -1)
    layout = layout or Layout({"vector": (several.shape[1],)}, torch.float64)
    given = [1.0] * len(rows) if weights is None else weights
    return [Payload(sender, Params(layout, row.clone()), given[sender]) for sender, row in enumerate(several)]


def combined(made: Any, rows: Any, layout: Optional[Layout] = None, state: Any = None, **more: Any) -> list[float]:
    """What a rule makes of rows of numbers."""
    aggregate, _ = made.combine(payloads(rows, layout, **more), state)
    numbers: list[float] = aggregate.flat.tolist()
    return numbers


def drawn(seed: int, members: int, size: int = 7) -> Any:
    """Normally distributed numbers, [members, size]."""
    return np.random.default_rng(seed).normal(size=(members, size))
