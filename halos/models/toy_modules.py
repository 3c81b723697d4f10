"""The toy models' modules, and the numbers they draw from the tokens of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class QuadraticModule(nn.Module):
    """The bowl as a module; `optimum` is the θ at which its expected loss is zero."""

    curvature: Tensor
    optimum: Tensor

    def __init__(
        self, start: list[float], curvature: list[float], optimum: list[float], noise: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.noise = noise
        self.theta = nn.Parameter(torch.tensor(start, dtype=dtype))
        self.register_buffer("curvature", torch.tensor(curvature, dtype=dtype), persistent=False)
        self.register_buffer("optimum", torch.tensor(optimum, dtype=dtype), persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        distance = self.theta - self.optimum
        loss = 0.5 * (self.curvature * distance.square()).sum()
        if self.noise and self.training:
            xi = _normal(_sample_keys(batch)[:, None], len(distance))  # [batch, size]
            loss = loss + self.noise * (xi.mean(0).to(distance.dtype) * distance).sum()
        return loss


class LinearRegressionModule(nn.Module):
    """Least squares as a module; `optimum` is the w that made the targets, [1, features]."""

    optimum: Tensor

    def __init__(self, start: list[float], optimum: list[float], noise: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.noise = noise
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
