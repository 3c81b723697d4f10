"""`python -m halos.utilization CONFIG`: the bandwidth that methods of synchronising need to keep a cluster computing.

No run is simulated: halos/overlap.py works out the steady state of one cycle; docs/utilization.md explains both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from halos import curves
from halos.builder import Builder
from halos.codecs import Bf16, Codec
from halos.command import Parser, mistake
from halos.curves import Curve
from halos.errors import ConfigError, UserError, require, shown
from halos.fragments import assign
from halos.layers import merge, overrides, read
from halos.loading import unique
from halos.overlap import Cycle
from halos.params import Layout, Params
from halos.plugins import Plugins
from halos.references import interpolate

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
            labels = [each.label for each in getattr(self, key)]
            require(bool(labels), key, labels, "a list of at least one")
            twice = [label for label in labels if labels.count(label) > 1]
            require(not twice, key, twice[:1], "the label of one only")
        bits = self.bits_per_parameter
        require(0 < bits <= MOST_BITS, "bits_per_parameter", bits, f"a positive number, at most {MOST_BITS:,}")
        for i, target in enumerate(self.targets_percent):
            require(0 < target <= 100, f"targets_percent[{i}]", target, "a percentage above 0, up to 100")


def curve(model: ModelOptions, method: MethodOptions, options: Options) -> Curve:
    """The utilisation of `method` on `model` at every bandwidth."""
    grid = options.bandwidth_gbps
    gbps = np.geomspace(grid.lowest, grid.highest, grid.points)
    bits = method.bits
    if bits is None:
        bits = options.bits_per_parameter * _relative_size(method.codec or Bf16(), model)
    cut = method.fragments.cut(model.layers) if method.fragments else [list(range(model.layers))]
    seconds = bits * model.parameters / model.layers / (gbps * 1e9)  # of one layer's reduction
    cycle = Cycle(cut, method.every, method.overlap)
    return Curve(model.label, method.label, gbps, cycle.utilization(model.step_time_seconds, seconds))


def _relative_size(codec: Codec, model: ModelOptions) -> float:
    """What the codec makes of one layer, in bytes, relative to bf16: of matrices as a transformer's layer has them."""
    hidden = max(1, round(math.sqrt(model.parameters / model.layers / 12)))
    wide = {"query_key_value": 3 * hidden, "dense": hidden, "up": 4 * hidden, "down": 4 * hidden}
    layer = Params(Layout({name: (width, hidden) for name, width in wide.items()}), None)
    return codec.wire_bytes(layer) / (2 * layer.size)


def load(path: str, changes: Sequence[str] = (), plugins: Sequence[str] = ()) -> Options:
    """The configuration in file `path` with `key=value` changes on top; UserError says what is wrong with it."""
    section = interpolate(merge(read(Path(path)), overrides(changes)))
    named = section.get("plugins") or []
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise ConfigError("plugins", f"{shown(named)} is not a list of files or modules")
    section["plugins"] = unique([*named, *plugins])
    options: Any = Builder(Plugins(section["plugins"])).build(Options, section, "")
    assert isinstance(options, Options), "built from its own class"
    return options


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m halos.utilization",
        description="The bandwidth that methods of synchronising need to keep a cluster computing.",
        epilog="The model and every key are explained in docs/utilization.md.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file; docs/utilization.md explains it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces one value of it")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every curve, point by point")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.png, .svg, .pdf; needs matplotlib)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE|MODULE", help="load a plugin's codecs")
    asked = parser.parse_intermixed_args(arguments)
    try:
        if asked.config is None:
            raise UserError(f"no configuration given; try: {parser.prog} configs/utilization/streaming_table4.yaml")
        if asked.plot:
            curves.figure_class()  # complain before anything is written
        options = load(asked.config, asked.overrides, asked.plugin)
        found = [curve(model, method, options) for model in options.models for method in options.methods]
        if asked.csv:
            curves.write_csv(found, asked.csv)
        if asked.plot:
            curves.write_plot(found, asked.plot)
        curves.show(found, options.targets_percent)
    except UserError as error:
        return mistake(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
