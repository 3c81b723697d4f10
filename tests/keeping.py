"""A plugin with models that keep something outside their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn

from halos import Register, hookimpl

HERE = __file__


class Normed(nn.Module):
    """A batch norm between two layers, that predicts the last token; dropout, and a generator of its own."""

    def __init__(self, width: int, dropout: float, noise: float) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(8, width), nn.BatchNorm1d(width), nn.Linear(width, 1)
        self.dropout, self.noise = nn.Dropout(dropout), noise
        self.generator = torch.Generator()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        x, y = batch[:, :-1] / 64, batch[:, -1] / 64
        out: torch.Tensor = self.outer(self.dropout(self.norm(self.inner(x)).relu()))[:, 0]
        if self.training and self.noise:
            out = out + self.noise * torch.randn(len(out), generator=self.generator)
        return (out - y).square().mean()


@dataclass
class Keeping:
    """Normed, of a width."""

    width: int = 3
    dropout: float = 0.0
    noise: float = 0.0

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        return Normed(self.width, self.dropout, self.noise)


class Drawn(nn.Module):
    """Its loss is what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.rand(()) + 0 * self.theta.sum()


@dataclass
class Drawing:
    """Drawn."""

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        return Drawn()


class Counter(nn.Module):
    """Its loss depends on how often it was asked, by an attribute; or, if `seen`, by a buffer."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros(1))
        if not seen:
            del self.count
            self.count = torch.zeros(1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count += 1
        return (self.theta - self.count).square().sum()


@dataclass
class Counting:
    """Counter."""

    seen: bool = True

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        return Counter(self.seen)


@hookimpl
def register_models(register: Register) -> None:
    register("keeping", Keeping)
    register("counting", Counting)
    register("drawing", Drawing)
