"""Two models whose optimum is known, for seeing what a policy does in a second and checking it by hand.

Both are differentiable functions of one tensor. The run's data is real but only feeds a hash: every token
of every sample has a fixed pseudo-random number, so workers with different samples see different gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

import torch

from halos.errors import require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from halos.models.toy_modules import LinearRegressionModule, QuadraticModule

Numbers = Union[float, list[float]]  # one for all, or one each
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Quadratic:
    """A bowl: ½ Σ aᵢ (θᵢ − θ*ᵢ)², with its optimum θ* at `optimum`.

    With `noise` σ, training adds σ ⟨ξ, θ − θ*⟩, ξ the mean over the batch of one standard normal vector per
    sample: unbiased gradients of standard deviation σ / √batch. Evaluation (module.eval()) is without noise.
    The parameter `theta` has one dimension, so that weight decay, which would move the optimum, leaves it alone.
    """

    size: int = 2  # how many parameters
    curvature: Numbers = 1.0  # a ≥ 0, one number or a list of `size`
    optimum: Numbers = 1.0  # θ*, likewise
    start: Numbers = 0.0  # initial θ, likewise; the seed plays no part
    noise: float = 0.0  # σ, standard deviation of one sample's gradient; none in evaluation
    dtype: str = "float32"  # or float64
    wire_bytes: Optional[int] = None  # of the whole model in fp32, on the wire; null: 4 per parameter
    seed: Optional[int] = None  # nothing is drawn

    def __post_init__(self) -> None:
        _check(self.size, "size", self.noise, self.dtype, self.wire_bytes)
        for key in ("curvature", "optimum", "start"):
            _check_numbers(key, getattr(self, key), self.size)
        lowest = min(self.curvature) if isinstance(self.curvature, (list, tuple)) else self.curvature
        require(lowest >= 0, "curvature", self.curvature, "non-negative: the loss would have no minimum")

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"theta": (self.size,)}

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        from halos.models.toy_modules import QuadraticModule  # loads PyTorch, for its classes

        start, curvature, optimum = (_numbers(given, self.size) for given in (self.start, self.curvature, self.optimum))
        return QuadraticModule(start, curvature, optimum, self.noise, getattr(torch, self.dtype))


@dataclass(frozen=True)
class LinearRegression:
    """Least squares: ½ mean (⟨w, x⟩ − y)² over the batch, y = ⟨w*, x⟩ + σ ε, with its optimum w* at `optimum`.

    A sample's features x are Σ_t c(t, token_t) / √length, with c a fixed standard normal vector per position
    and token: of about unit variance, and different in the mean where token frequencies differ (`shards: by_source`).
    The parameter `weight` is [1, features] as in any linear layer, so weight decay applies to it; `optimum` is
    that of the loss without decay.
    """

    features: int = 8  # of a sample
    optimum: Numbers = 1.0  # w*, one number or a list of `features`
    start: Numbers = 0.0  # initial w, likewise; the seed plays no part
    noise: float = 0.0  # σ, standard deviation of the targets
    dtype: str = "float32"  # or float64
    wire_bytes: Optional[int] = None  # of the whole model in fp32, on the wire; null: 4 per parameter
    seed: Optional[int] = None  # nothing is drawn

    def __post_init__(self) -> None:
        _check(self.features, "features", self.noise, self.dtype, self.wire_bytes)
        for key in ("optimum", "start"):
            _check_numbers(key, getattr(self, key), self.features)

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"weight": (1, self.features)}

    def build(self, vocab_size: Optional[int], seed: int) -> LinearRegressionModule:
        from halos.models.toy_modules import LinearRegressionModule

        start, optimum = _numbers(self.start, self.features), _numbers(self.optimum, self.features)
        return LinearRegressionModule(start, optimum, self.noise, getattr(torch, self.dtype))


def _check(size: int, key: str, noise: float, dtype: str, wire_bytes: Optional[int]) -> None:
    require(size >= 1, key, size, "a positive number")
    require(noise >= 0, "noise", noise, "a standard deviation")
    require(dtype in DTYPES, "dtype", dtype, "one of " + ", ".join(DTYPES))
    require(wire_bytes is None or wire_bytes >= 1, "wire_bytes", wire_bytes, "a positive number")


def _numbers(value: Numbers, size: int) -> list[float]:
    return [float(number) for number in value] if isinstance(value, (list, tuple)) else [float(value)] * size


def _check_numbers(key: str, value: Numbers, size: int) -> None:
    """One number for all, or a list of `size`."""
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    plain = all(isinstance(number, (int, float)) and math.isfinite(number) for number in several)
    fits = not isinstance(value, (list, tuple)) or len(several) == size
    require(plain and fits, key, value, f"a number or a list of {size}")


@hookimpl
def register_models(register: Register) -> None:
    register("quadratic", Quadratic)
    register("linear_regression", LinearRegression)
