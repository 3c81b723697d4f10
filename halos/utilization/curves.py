"""Utilisation against bandwidth as a reader wants it: a table, a CSV file or a plot."""

from __future__ import annotations

import csv
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from halos.errors import UserError
from halos.rules.codecs import Bf16, Codec
from halos.utilization.cycle import Cycle
from halos.utilization.options import MethodOptions, ModelOptions, Options
from halos.values.params import Layout, Params

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("model", "method", "utilization", "gbps")
MARKS = "osv^Dxp*"  # so that curves can be told apart without colours too


@dataclass(frozen=True)
class Curve:
    """The share of time that one method computes on one model, at each of several bandwidths (ascending)."""

    model: str
    method: str
    gbps: NDArray[np.float64]
    utilization: NDArray[np.float64]

    def needed(self, target: float) -> float | None:
        """The first of the bandwidths, in Gbit/s, at which the utilisation is at least `target`; None if at none."""
        reached = np.flatnonzero(self.utilization >= target - 1e-9)  # 100 % may be a rounding error less
        return float(self.gbps[reached[0]]) if reached.size else None


def show(curves: Sequence[Curve], targets_percent: Sequence[float], console: Console | None = None) -> None:
    """Print a table per model: the bandwidth that each method needs for each target."""
    console = console or Console(highlight=False, markup=False, emoji=False)  # labels mean their brackets
    for model in _models(curves):
        console.print()
        table = Table(title=Text(f"{model}: Gbit/s needed"), title_justify="left", box=None, header_style="dim")
        table.add_column("compute utilisation")
        for target in targets_percent:
            table.add_column(f"{target:g} %", justify="right", no_wrap=True)
        for curve in (candidate for candidate in curves if candidate.model == model):
            needed = (curve.needed(target / 100) for target in targets_percent)
            table.add_row(Text(curve.method), *(_gbps(gbps, float(curve.gbps[-1])) for gbps in needed))
        console.print(table)


def write_csv(curves: Sequence[Curve], path: Path) -> None:
    """A line per curve and bandwidth."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for curve in curves:
                for gbps, share in zip(curve.gbps, curve.utilization):
                    lines.writerow((curve.model, curve.method, f"{share:.9g}", f"{gbps:.9g}"))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def figure_class() -> Any:
    """matplotlib's Figure; UserError if it is not installed."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise UserError("--plot: matplotlib is not installed; run: pip install halos-simulator[plot]") from None


def write_plot(curves: Sequence[Curve], path: Path) -> None:
    """A panel per model, a line per method; the file's suffix says in which format."""
    models = _models(curves)
    figure = figure_class()(figsize=(1.2 + 4.3 * len(models), 4.6), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    methods = list(dict.fromkeys(curve.method for curve in curves))
    for panel, model in zip(panels, models):
        for curve in (candidate for candidate in curves if candidate.model == model):
            i = methods.index(curve.method)
            style = {"color": f"C{i % 10}", "marker": MARKS[i % len(MARKS)], "markersize": 4}
            panel.plot(curve.gbps, 100 * curve.utilization, label=curve.method, linewidth=1.4, markevery=4, **style)
        panel.set(title=model, xscale="log", xlabel="bandwidth (Gbit/s)", ylim=(0, 103))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlim(float(curves[0].gbps[0]), float(curves[0].gbps[-1]))
        panel.grid(True, which="major", alpha=0.35)
    panels[0].set_ylabel("compute utilisation (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(methods)))
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    except ValueError as error:  # a format that there is not
        raise UserError(f"{path} cannot be written: {error}") from None


def _models(curves: Sequence[Curve]) -> list[str]:
    return list(dict.fromkeys(curve.model for curve in curves))


def _gbps(needed: float | None, highest: float) -> str:
    if needed is None:
        return f">{highest:g}"
    return f"{needed:.1f}" if needed >= 0.1 else f"{needed:.2g}"


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
    """Return the codec's bytes of one layer, relative to bf16: of matrices as a transformer's layer has them."""
    hidden = max(1, round(math.sqrt(model.parameters / model.layers / 12)))
    wide = {"query_key_value": 3 * hidden, "dense": hidden, "up": 4 * hidden, "down": 4 * hidden}
    layer = Params(Layout({name: (width, hidden) for name, width in wide.items()}), None)
    return codec.wire_bytes(layer) / (2 * layer.size)
