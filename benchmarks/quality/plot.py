"""The figure of docs/results.md: loss against tokens and against simulated time (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.study import Part
from benchmarks.quality.tables import Raw, curves

POINTS = 400


def draw(part: Part, raw: Raw, path: Path, reference: str = "diloco") -> None:
    """Loss above the reference's final one of the same seed: its mean a line, from lowest to highest a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = curves(part, raw)
    floors = [line.loss[-1] for line in found[reference if reference in found else next(iter(found))]]
    some = raw[f"{part.name}/{next(iter(found))}/{part.seeds[0]}"]
    tokens_per_step = some["tokens"] / some["steps"]["trained"]
    figure, (by_tokens, by_time) = pyplot.subplots(1, 2, figsize=(11, 5.2), sharey=True, constrained_layout=True)
    for number, each in enumerate(part.methods):
        if each.name not in found:
            continue
        lines = list(zip(found[each.name], floors))
        # Ten colours, three kinds of line: no two methods look alike.
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "label": each.title}
        steps = np.linspace(0, min(line.trained_steps[-1] for line, _ in lines), POINTS)
        losses = [[line.at_steps(x) - floor for x in steps] for line, floor in lines]
        _band(by_tokens, steps * tokens_per_step / 1e6, losses, style)
        times = np.geomspace(20.0, min(line.time[-1] for line, _ in lines), POINTS)
        _band(by_time, times, [[line.at_time(x) - floor for x in times] for line, floor in lines], style)
    title = next((each.title for each in part.methods if each.name == reference), "the first")
    by_tokens.set(xlabel="tokens trained on, millions", ylabel=f"validation loss above {title}'s final one")
    by_tokens.set_ylim(-0.5, 1.0)
    by_time.set(xlabel="simulated time, seconds", xscale="log")
    for axes in (by_tokens, by_time):
        axes.grid(alpha=0.3)
    handles, labels = by_tokens.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _band(axes: Any, x: Any, values: list[list[float]], style: dict[str, str]) -> None:
    each = np.array(values)
    axes.plot(x, each.mean(0), linewidth=1.5, **style)
    axes.fill_between(x, each.min(0), each.max(0), color=style["color"], alpha=0.1, linewidth=0)
