"""Parameters made of plain numbers, and steps of a rule on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch

from halos import Layout, MergeRule, Params, start_of

ONE = Layout({"theta": (1,)}, torch.float64)
TWO = Layout({"a": (2, 1), "b": (2,)}, torch.float64)  # two tensors of two numbers
Arrival = tuple[Sequence[float], Optional[Sequence[float]], int]  # Δ, where it began (None: unknown), its age


def params(values: Sequence[float], layout: Layout = ONE) -> Params:
    return Params(layout, torch.tensor(values, dtype=torch.float64))


def numbers(of: Params) -> list[float]:
    assert of.flat is not None
    return [float(each) for each in of.flat]


def arriving(rule: MergeRule, arrivals: Sequence[Arrival], layout: Layout = ONE) -> tuple[list[Any], list[Any]]:
    """Where the model, from zeros, and workers are after each arrival: (θ, start) lists."""
    theta = params([0.0] * layout.size, layout)
    state, models, starts = rule.init(theta), [], []
    for delta, base, age in arrivals:
        begun = None if base is None else params(base, layout)
        theta, state = rule.step(theta, params(delta, layout), state, base=begun, staleness=age)
        models.append(numbers(theta))
        starts.append(numbers(start_of(rule, theta, state)))
    return models, starts


def flat(several: Sequence[Sequence[float]]) -> list[float]:
    return [each for one in several for each in one]
