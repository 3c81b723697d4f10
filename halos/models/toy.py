"""Two models whose optimum is known, for seeing what a policy does in a second and checking it by hand.

Both are differentiable functions of one tensor. The run's data is real but only feeds a hash: every token
of every sample has a fixed pseudo-random number, so workers with different samples see different gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Union

import torch
from torch import Tensor, nn

from halos.errors import require
from halos.hooks import Register, hookimpl

Numbers = Union[float, list[float]]  # one for all, or one each
DTYPES = {"float32": torch.float32, "float64": torch.float64}


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

    def __post_init__(self) -> None:
        _check(self.size, "size", self.noise, self.dtype, self.wire_bytes)
        for key in ("curvature", "optimum", "start"):
            _check_numbers(key, getattr(self, key), self.size)
        lowest = min(self.curvature) if isinstance(self.curvature, (list, tuple)) else self.curvature
        require(lowest >= 0, "curvature", self.curvature, "non-negative: the loss would have no minimum")

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"theta": (self.size,)}

    def build(self, vocab_size: Optional[int], seed: int) -> QuadraticModule:
        return QuadraticModule(self)


class QuadraticModule(nn.Module):
    """The bowl as a module; `optimum` is the θ at which its expected loss is zero."""

    curvature: Tensor
    optimum: Tensor

    def __init__(self, config: Quadratic) -> None:
        super().__init__()
        dtype = DTYPES[config.dtype]
        self.noise = config.noise
        self.theta = nn.Parameter(torch.tensor(_numbers(config.start, config.size), dtype=dtype))
        for key in ("curvature", "optimum"):
            values = torch.tensor(_numbers(getattr(config, key), config.size), dtype=dtype)
            self.register_buffer(key, values, persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        distance = self.theta - self.optimum
        loss = 0.5 * (self.curvature * distance.square()).sum()
        if self.noise and self.training:
            xi = _normal(_sample_keys(batch)[:, None], len(distance))  # [batch, size]
            loss = loss + self.noise * (xi.mean(0).to(distance.dtype) * distance).sum()
        return loss


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

    def __post_init__(self) -> None:
        _check(self.features, "features", self.noise, self.dtype, self.wire_bytes)
        for key in ("optimum", "start"):
            _check_numbers(key, getattr(self, key), self.features)

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"weight": (1, self.features)}

    def build(self, vocab_size: Optional[int], seed: int) -> LinearRegressionModule:
        return LinearRegressionModule(self)


class LinearRegressionModule(nn.Module):
    """Least squares as a module; `optimum` is the w that made the targets, [1, features]."""

    optimum: Tensor

    def __init__(self, config: LinearRegression) -> None:
        super().__init__()
        dtype = DTYPES[config.dtype]
        self.noise = config.noise
        start = _numbers(config.start, config.features)
        optimum = _numbers(config.optimum, config.features)
        self.weight = nn.Parameter(torch.tensor([start], dtype=dtype))
        self.register_buffer("optimum", torch.tensor([optimum], dtype=dtype), persistent=False)

    def examples(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Features [batch, features] and targets [batch], a function of the samples alone."""
        codes = _normal(_token_keys(batch)[..., None], self.weight.shape[1])  # [batch, length + 1, features]
        x = (codes.sum(1) / math.sqrt(batch.shape[1])).to(self.weight.dtype)
        y = (x * self.optimum).sum(-1)
        if self.noise:
            y = y + self.noise * _normal(_sample_keys(batch)[:, None], 1)[:, 0].to(y.dtype)
        return x, y

    def forward(self, batch: Tensor) -> Tensor:
        x, y = self.examples(batch)
        return 0.5 * ((x * self.weight).sum(-1) - y).square().mean()


def _check(size: int, key: str, noise: float, dtype: str, wire_bytes: Optional[int]) -> None:
    require(size >= 1, key, size, "a positive number")
    require(noise >= 0, "noise", noise, "a standard deviation")
    require(dtype in DTYPES, "dtype", dtype, "one of " + ", ".join(DTYPES))
    require(wire_bytes is None or wire_bytes >= 1, "wire_bytes", wire_bytes, "a positive number")


def _check_numbers(key: str, value: Numbers, size: int) -> None:
    """One number for all, or a list of `size`."""
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    plain = all(isinstance(each, (int, float)) and math.isfinite(each) for each in several)
    fits = not isinstance(value, (list, tuple)) or len(several) == size
    require(plain and fits, key, value, f"a number or a list of {size}")


def _numbers(value: Numbers, size: int) -> list[float]:
    return [float(each) for each in value] if isinstance(value, (list, tuple)) else [float(value)] * size


# A hash in tensor arithmetic, without generators, so that it runs wherever the batch is and under vmap: 31-bit keys,
# multiplied by odd constants below 2^31, never leave int64.

_MASK = 0x7FFFFFFF


def _mixed(keys: Tensor) -> Tensor:
    for factor in (0x45D9F3B, 0x2C1B3C6D, 0x297A2D39):
        keys = ((keys ^ (keys >> 15)) * factor) & _MASK
    return keys ^ (keys >> 16)


def _token_keys(batch: Tensor) -> Tensor:
    """[batch, length + 1] → a key for each position and token."""
    positions = torch.arange(batch.shape[1], device=batch.device)
    return _mixed(_mixed(batch & _MASK) + _mixed(positions + 1) & _MASK)


def _sample_keys(batch: Tensor) -> Tensor:
    """[batch, length + 1] → [batch], a key for each sample."""
    return _mixed(_token_keys(batch).sum(1) & _MASK)


def _normal(keys: Tensor, size: int) -> Tensor:
    """[…, 1] keys → […, size] standard normal numbers, float64."""
    streams = _mixed(torch.arange(1, size + 1, device=keys.device) * 0x9E3779B & _MASK)
    uniform = (_mixed(keys + streams & _MASK).double() + 0.5) / (_MASK + 1)  # in (0, 1)
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1)


@hookimpl
def register_models(register: Register) -> None:
    register("quadratic", Quadratic)
    register("linear_regression", LinearRegression)
