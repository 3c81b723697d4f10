"""`python -m halos.utilization CONFIG`: the bandwidth that methods of synchronising need to keep a cluster computing.

No run is simulated: `cycle` works out the steady state of one cycle; docs/utilization.md explains both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Optional

from halos.errors import ConfigError, require
from halos.rules.codecs import Codec
from halos.values.fragments import assign

MOST_BITS = 1_000_000_000  # a parameter; more makes no sense


@dataclass(frozen=True)
class ModelOptions:
    """A model as a size: its parameters lie evenly in its layers."""

    label: str
    parameters: int
    layers: int
    step_time_seconds: float  # of one local step, all of it computing

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 500, "layers", self.layers, "a number from 1 to 500")
        require(self.parameters >= self.layers, "parameters", self.parameters, "at least one per layer")
        seconds = self.step_time_seconds
        require(0 < seconds <= 1e12, "step_time_seconds", seconds, "a positive number, at most 1e12")


@dataclass(frozen=True)
class FragmentOptions:
    """Fragments of as many layers, or more where the layers do not divide evenly."""

    of_layers: int
    pattern: str = "strided"  # or sequential

    def __post_init__(self) -> None:
        require(self.of_layers >= 1, "of_layers", self.of_layers, "a positive number")
        assign(1, 1, self.pattern)

    def cut(self, layers: int) -> list[list[int]]:
        """The layers of each fragment."""
        return assign(layers, max(1, layers // self.of_layers), self.pattern)


@dataclass(frozen=True)
class MethodOptions:
    """When and as what parameters are reduced."""

    label: str
    every: int  # local steps between two reductions of a parameter
    fragments: Optional[FragmentOptions] = None  # reduced at different steps; null: everything at once
    overlap: int = 0  # further local steps that need not wait for a reduction; every: one whole round
    codec: Optional[Codec] = None  # of what is sent; null: bf16
    bits: Optional[float] = None  # per parameter, in the place of a codec

    def __post_init__(self) -> None:
        require(1 <= self.every <= 1_000_000, "every", self.every, "a number from 1 to 1,000,000")
        require(0 <= self.overlap <= self.every, "overlap", self.overlap, f"a number from 0 to every ({self.every})")
        bits = self.bits
        require(bits is None or 0 < bits <= MOST_BITS, "bits", bits, f"a positive number, at most {MOST_BITS:,}")
        if self.bits is not None and self.codec is not None:
            raise ConfigError("bits", "given together with a codec; one of them says how much is sent")
        if getattr(self.codec, "gathered", False):
            raise ConfigError("codec", "its payloads cannot be summed under way; give `bits` for their reduction")


@dataclass(frozen=True)
class BandwidthOptions:
    """The bandwidths to look at, in Gbit/s, each the same multiple of the one before."""

    lowest: float = 0.1
    highest: float = 1000.0
    points: int = 50

    def __post_init__(self) -> None:
        require(1e-15 <= self.lowest < math.inf, "lowest", self.lowest, "a number from 1e-15 up")
        require(self.lowest < self.highest <= 1e15, "highest", self.highest, f"a number above {self.lowest:g}, to 1e15")
        require(2 <= self.points <= 200, "points", self.points, "a number from 2 to 200")


@dataclass(frozen=True)
class Options:
    """The whole configuration."""

    models: list[ModelOptions]
    methods: list[MethodOptions]
    bits_per_parameter: float = 16.0  # what a reduction in bf16 moves over the slowest link
    bandwidth_gbps: BandwidthOptions = field(default_factory=BandwidthOptions)
    targets_percent: list[float] = field(default_factory=lambda: [50.0, 80.0, 90.0, 95.0, 99.0])
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in ("models", "methods"):
            labels = [entry.label for entry in getattr(self, key)]
            require(bool(labels), key, labels, "a list of at least one")
            twice = [label for label in labels if labels.count(label) > 1]
            require(not twice, key, twice[:1], "the label of one only")
        bits = self.bits_per_parameter
        require(0 < bits <= MOST_BITS, "bits_per_parameter", bits, f"a positive number, at most {MOST_BITS:,}")
        for i, target in enumerate(self.targets_percent):
            require(0 < target <= 100, f"targets_percent[{i}]", target, "a percentage above 0, up to 100")
