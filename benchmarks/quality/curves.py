"""What is read off the evaluations of a run, and off those of its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import Any


@dataclass(frozen=True)
class Curve:
    """The validation loss of one run's global model, evaluation by evaluation."""

    time: list[float]  # simulated seconds
    trained_steps: list[int]  # by all workers, whether their updates have been committed or not
    loss: list[float]

    @staticmethod
    def of(result: dict[str, Any]) -> Curve:
        return Curve(result["time"], result["trained_steps"], result["loss"])

    def at_steps(self, steps: float) -> float:
        """On the straight line between two evaluations; of several at the same number the last counts."""
        points = sorted(dict(zip(self.trained_steps, self.loss)).items())
        for (left, before), (right, after) in pairwise(points):
            if left <= steps <= right:
                return before + (after - before) * (steps - left) / (right - left)
        raise ValueError(f"{steps} steps are not among the {points[0][0]} to {points[-1][0]} that were trained")

    def at_time(self, seconds: float) -> float:
        """Of the model one had then: the last evaluation not after it (the final one, if the run had ended)."""
        return [loss for time, loss in zip(self.time, self.loss) if time <= seconds][-1]

    def time_to(self, target: float) -> float | None:
        """When it was first seen at or below `target`."""
        return next((time for time, loss in zip(self.time, self.loss) if loss <= target), None)

    def time_at_steps(self, steps: float) -> float:
        """When so many steps had been trained, of the evaluations."""
        return next(time for time, trained in zip(self.time, self.trained_steps) if trained >= steps)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds."""

    mean: float
    deviation: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(mean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    def show(self, form: str = ".3f") -> str:
        """`2.231 ± 0.004`; the sign is written out if `form` has a `+`."""
        text = format(self.mean, form)
        return text if math.isnan(self.deviation) else f"{text} ± {format(self.deviation, form.lstrip('+'))}"


def steps_all_reached(curves: Sequence[Curve]) -> int:
    """The largest number of trained steps at which every run can be read off."""
    return min(curve.trained_steps[-1] for curve in curves)
