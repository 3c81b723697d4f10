"""Figures of drift: over time, and against what it goes with in loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Optional

import numpy as np

from halos.compare.bands import Band, common, gaps
from halos.compare.drifts import WAYS, Drifts, drifts, over_time
from halos.compare.figures.drawing import NAMED, ink, lines, logarithmic, marks, named
from halos.compare.figures.figure import Figure, Panel, figure
from halos.compare.figures.losses import Losses
from halos.compare.figures.style import Style
from halos.compare.groups import Group
from halos.compare.scale import Scale, amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Found = dict[str, list[dict[int, Drifts]]]

MEANT = (
    "how far the global model had moved meanwhile (L2 norm), by the norm ‖Δ‖ of the update that was merged: 1 is one"
    " update's worth. Hop: since the model from which what the server merged was computed. End to end: since the worker"
    " began."
)


def found(groups: Sequence[Group]) -> Found:
    """Return the drifts of every run, by way, group and seed; of those that have any."""
    return {
        way: [
            {seed: each for seed, run in group.runs.items() if len((each := drifts(run, way)).ratio)}
            for group in groups
        ]
        for way in WAYS
    }


def over(known: Found, looks: Sequence[Style]) -> Optional[Figure]:
    """Return drift over simulated time; None if none is known."""
    panels = []
    for way in WAYS:
        bands = [over_time(list(several.values())) for several in known[way]]
        latest = max((float(each.at[-1]) for each in bands if each is not None), default=None)
        if latest is not None:
            scale = Scale.of([latest], "seconds")
            scaled = [(look, each and each.per(scale.size)) for look, each in zip(looks, bands)]
            panels.append(
                Panel(f"drift, {way}, over simulated time", partial(_draw_over, bands=scaled, way=way, unit=scale.unit))
            )
    caption = (
        f"Drift: {MEANT} Means in forty intervals of time, over a run's merges at its global server; a line is the mean"
        " over seeds, its band reaches from the lowest to the highest. Where these come above 20, the axis is"
        " logarithmic from 1 on."
    )
    return figure("drift", "Drift over time", caption, panels, looks, _some(known))


def against_loss(
    known: Found, curves: Losses, looks: Sequence[Style], bases: Optional[Losses], name: str
) -> Optional[Figure]:
    """Return mean drifts against losses, or their differences to the baseline's of the same seed; None without any.

    `curves` are each group's by seed, `bases` its baseline's (None: there are no baselines), which is called `name`.
    """
    tokens = common(curves)
    if bases is None:
        losses = [{seed: float(curve.loss[-1]) for seed, curve in several.items()} for several in curves]
    else:
        losses = [gaps(several, base, tokens) for several, base in zip(curves, bases)]
    panels = []
    for way in WAYS:
        points = [
            [(each.mean, several[seed]) for seed, each in mine.items() if seed in several]
            for mine, several in zip(known[way], losses)
        ]
        if any(points):
            what = "final validation loss" if bases is None else "loss minus the baseline's"
            draw = partial(_draw_against, points=points, looks=looks, way=way, what=what, gap=bases is not None)
            panels.append(Panel(f"loss against drift, {way}", draw))
    compared = "the last validation loss"
    if bases is not None:
        equal = f"after {amount(tokens, 'tokens')}, the most that all runs have trained on"
        compared = f"validation loss minus that of {name} of the same seed, {equal}"
    caption = f"Across: a run's mean drift: {MEANT} Up: {compared}. Small marks are runs, large ones means over seeds."
    return figure("drift-against-loss", "Drift against loss", caption, panels, looks, _some(known), marks=True)


def _some(known: Found) -> list[bool]:
    """Of which groups something is known, either way."""
    return [any(ways) for ways in zip(*known.values())]


def _draw_over(axes: Axes, bands: Sequence[tuple[Style, Optional[Band]]], way: str, unit: str) -> None:
    lines(axes, bands)
    axes.set(xlabel=f"simulated time ({unit})", ylabel=f"drift {way} / ‖Δ‖")
    logarithmic(axes)
    highest = max(float(band.high.max()) for _, band in bands if band is not None)
    lowest = -0.03 * highest  # so that a line at 0 is seen
    if highest > 20:  # so that 0 to 1 can be told apart as well
        axes.set_yscale("symlog", linthresh=1, linscale=0.6)
        axes.yaxis.set_major_formatter("{x:g}")
        lowest = -0.15
    axes.set_ylim(bottom=lowest)


def _draw_against(
    axes: Axes, points: Sequence[Sequence[tuple[float, float]]], looks: Sequence[Style], way: str, what: str, gap: bool
) -> None:
    if gap:
        axes.axhline(0, color=ink(), linestyle="dotted", linewidth=1)
    means = []
    for several, look in zip(points, looks):
        if several:
            across, up = (float(mean) for mean in np.mean(several, 0))
            marks(axes, look, several, (across, up))
            means.append((look, across, up))
    axes.margins(x=0.08, y=0.12)
    axes.set(xlabel=f"mean drift {way} / ‖Δ‖", ylabel=what)
    if len(means) <= NAMED:
        named(axes, means)
