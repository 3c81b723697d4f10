"""Figures of loss: along time, tokens and bytes, itself and above the baseline's final one; and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Optional

import numpy as np

from halos.compare.bands import Band, above, band, held
from halos.compare.curve import Curve
from halos.compare.figures.drawing import NAMED, ink, lines, logarithmic, marks, named
from halos.compare.figures.figure import Figure, Panel, figure
from halos.compare.figures.style import Style
from halos.compare.front import dominators
from halos.compare.scale import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Losses = Sequence[dict[int, Curve]]  # a group's curves by seed, group by group
AXES = {"tokens": "trained tokens", "seconds": "simulated time", "bytes": "bytes on the wire"}
LABELS = {"tokens": "trained on", "seconds": "simulated time", "bytes": "on the wire"}  # with a unit
LOGARITHMIC = ("seconds", "bytes")


def loss(found: Losses, looks: Sequence[Style], target: Optional[float]) -> Optional[Figure]:
    """Return the validation loss; None if no run has any."""
    said = "Validation loss of the global model, in nats per token (or the model's own unit)."
    marked = "" if target is None else f" The dotted line is the target, {target:g}."
    panels = _panels(found, looks, "validation loss", target, 0.0)
    return figure("loss", "Validation loss", f"{said} {_reading()}{marked}", panels, looks, found)


def loss_above(found: Losses, looks: Sequence[Style], bases: Losses, name: str) -> Optional[Figure]:
    """Return the same minus the final loss of the same seed of each group's baseline; None if there is none.

    `bases` are the baselines' curves, group by group (of one without: none), `name` what the baseline is called.
    """
    found = [above(several, base) for several, base in zip(found, bases)]
    said = f"Validation loss minus the final one of {name} of the same seed (dotted: 0), in nats per token."
    cut = "What is far above the rest, as in the first half of the way, is cut off."
    panels = _panels(found, looks, "loss above the baseline's final", 0.0, 0.5)
    title = f"Loss above the final one of {name}"
    return figure("loss-above-baseline", title, f"{said} {_reading()} {cut}", panels, looks, found)


def pareto(found: Losses, looks: Sequence[Style]) -> Optional[Figure]:
    """Return final loss against simulated time and bytes; None if no run has a loss."""
    known = [list(several.values()) for several in found]
    highest = max((float(curve.loss[0]) for several in known for curve in several), default=0.0)
    panels = []
    for axis in ("seconds", "bytes"):
        ends = [
            [(curve.reach(axis), float(curve.loss[-1])) for curve in several if curve.loss[-1] <= highest]
            for several in known
        ]
        means = [_mean([end for end in several if end[0] > 0]) for several in ends]  # and not NaN
        most = max((mean[0] for mean in means if mean is not None), default=None)
        if most is not None:
            scale = Scale.of([most], axis)
            draw = partial(_draw_pareto, ends=ends, means=means, looks=looks, size=scale.size)
            panels.append(
                Panel(f"final loss against {AXES[axis]}", _labelled(draw, axis, scale.unit, "final validation loss"))
            )
    caption = (
        "What a run has cost by its last evaluation, and its loss then: small marks are runs, large ones means over"
        " seeds. The grey line joins the groups that no other beats in both (the Pareto front, of means). Runs that"
        " ended above any loss that one began with are left out."
    )
    return figure("pareto", "Loss against cost", caption, panels, looks, found, marks=True)


def _reading() -> str:
    how: dict[bool, list[str]] = {True: [], False: []}
    for axis, words in AXES.items():
        how[held(axis)].append(words)
    return (
        "A line is the mean over seeds, its band reaches from the lowest to the highest, as far as all seeds of"
        f" the group have come. Against {' and '.join(how[True])} a loss is the last evaluation's until then; against"
        f" {' and '.join(how[False])} it is on the straight line between two evaluations. Bytes are those that have"
        " arrived, over all links."
    )


def front(points: Sequence[Optional[Point]]) -> list[Point]:
    """Return the points that nobody dominates, from left to right."""
    costs = {str(number): point for number, point in enumerate(points) if point is not None}
    return sorted(costs[name] for name, others in dominators(costs).items() if not others)


def top(bands: Sequence[Optional[Band]], part: float) -> float:
    """Return the highest mean at that part of its way, of all bands: what lies above may be cut off."""
    known = [each for each in bands if each is not None]
    places = [each.at[0] + part * (each.at[-1] - each.at[0]) for each in known]
    return max(float(np.interp(place, each.at, each.mean)) for place, each in zip(places, known))


def _mean(points: Sequence[Point]) -> Optional[Point]:
    return (float(np.mean([x for x, _ in points])), float(np.mean([y for _, y in points]))) if points else None


def _panels(found: Losses, looks: Sequence[Style], what: str, level: Optional[float], cut: float) -> list[Panel]:
    """Return a panel for each axis that something is known along. Cut off is what lies above that part of the way."""
    panels, highest = [], None
    for axis, words in AXES.items():
        bands = [band(list(several.values()), axis, axis in LOGARITHMIC) for several in found]
        known = [each for each in bands if each is not None]
        if not known:
            continue
        highest = top(known, cut) if highest is None else highest  # the same in all panels
        limits = min(float(each.low.min()) for each in known), highest
        scale = Scale.of([max(float(each.at[-1]) for each in known)], axis)
        drawn = [(look, each and each.per(scale.size)) for look, each in zip(looks, bands)]
        draw = partial(_draw_bands, bands=drawn, axis=axis, limits=limits, level=level)
        panels.append(Panel(f"{what} against {words}", _labelled(draw, axis, scale.unit, what)))
    return panels


def _labelled(draw: Callable[[Axes], None], axis: str, unit: str, what: str) -> Callable[[Axes], None]:
    def drawn(axes: Axes) -> None:
        draw(axes)
        axes.set(xlabel=f"{LABELS[axis]} ({unit})", ylabel=what)

    return drawn


def _draw_bands(
    axes: Axes,
    bands: Sequence[tuple[Style, Optional[Band]]],
    axis: str,
    limits: tuple[float, float],
    level: Optional[float],
) -> None:
    lines(axes, bands, held(axis))
    if level is not None:
        axes.axhline(level, color=ink(), linestyle="dotted", linewidth=1)
    if axis in LOGARITHMIC:
        logarithmic(axes)
    low, high = limits
    if high > low:
        room = 0.04 * (high - low)
        axes.set_ylim(low - room, high + room)


def _draw_pareto(
    axes: Axes, ends: Sequence[Sequence[Point]], means: Sequence[Optional[Point]], looks: Sequence[Style], size: float
) -> None:
    joined = front(means)
    axes.plot([x / size for x, _ in joined], [y for _, y in joined], color="#888888", linewidth=1, zorder=1)
    for several, mean, look in zip(ends, means, looks):
        if mean is None:
            continue
        marks(axes, look, [(x / size, y) for x, y in several], (mean[0] / size, mean[1]))
    logarithmic(axes)
    if len(joined) and len(looks) <= NAMED:
        named(axes, [(look, mean[0] / size, mean[1]) for mean, look in zip(means, looks) if mean is not None])
