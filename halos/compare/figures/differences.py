"""The figure of paired differences: one row a group, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Optional

import numpy as np

from halos.compare.bands import common, gaps
from halos.compare.figures.drawing import ink, marks, plain
from halos.compare.figures.figure import Figure, Panel
from halos.compare.figures.losses import Losses
from halos.compare.figures.style import Style
from halos.compare.scale import amount
from halos.compare.statistics import Paired

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Rows = Sequence[tuple[Style, list[float], Paired]]


def differences(found: Losses, looks: Sequence[Style], bases: Losses, name: str) -> Optional[Figure]:
    """Return losses minus the baseline's, group by group; None if there is no pair. Arguments as of `loss_above`."""
    rows, tokens = [], common(found)
    for look, several, base in zip(looks, found, bases):
        pairs = {} if base is several else gaps(several, base, tokens)
        if pairs:
            rows.append((look, list(pairs.values()), Paired.over(list(pairs.values()))))
    longest = max((len(plain(look.label)) for look, *_ in rows), default=0)
    if not rows:
        return None
    panel = Panel(
        "loss minus the baseline's, by group",
        partial(_draw, rows=rows),
        (4.6 + 0.07 * longest, 0.8 + 0.27 * len(rows)),
    )
    caption = (
        f"Validation loss minus that of {name} of the same seed, after {amount(tokens, 'tokens')}, the most that all"
        " runs have trained on. Small marks are pairs of runs, large ones their means, lines the 95 % intervals of"
        " these (Student's t, as in the tables; of one pair there is none). Where a line crosses 0, the seeds do not"
        " tell the two apart."
    )
    return Figure("differences", f"Loss minus that of {name}", caption, (panel,), ())


def _draw(axes: Axes, rows: Rows) -> None:
    axes.axvline(0, color=ink(), linestyle="dotted", linewidth=1)
    for place, (look, pairs, paired) in enumerate(rows):
        if np.isfinite(paired.low):
            axes.plot([paired.low, paired.high], [place, place], color=look.colour, linewidth=1.6)
        marks(axes, look, [(pair, place) for pair in pairs], (paired.mean, place))
    axes.set_yticks(range(len(rows)), [plain(look.label) for look, *_ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="loss minus the baseline's (nats per token, or the model's own unit)")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
