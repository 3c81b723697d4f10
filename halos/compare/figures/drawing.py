"""How figures look: by matplotlib, as SVG for pages light or dark, and as PNG. What is drawn is others' matter.

The same figure gives the same bytes: no dates, no random ids, nobody's matplotlibrc.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from halos.compare.bands import Band
from halos.compare.figures.figure import Figure, Panel
from halos.compare.figures.style import Style
from halos.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#010203", "#040506"  # in SVG these become the page's own
NAMED = 12  # groups, at most, that are named beside their points; more names would hide them
LONGEST = 48  # characters of a label in a figure
TAG = re.compile(r"<[^<>]*>")  # texts and attributes have no such signs as they are
PLACES = re.compile(r'(?<= )(?:d|x|y|transform)="[^"]*"')  # attributes that say where something is
NUMBER = re.compile(r"-?\d+\.\d+")


def needed() -> None:
    """Raise UserError if matplotlib is not installed."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        raise UserError(
            "figures need matplotlib, which is not installed; run: pip install halos-simulator[plot]"
        ) from None


def svg(panel: Panel, name: str) -> str:
    """Return a panel as an SVG element, for a page whose text colour is `currentColor` and that has `--grid`.

    `name` must be another for each element of a page.
    """
    with _matplotlib(name, INK, GRID) as new:
        figure = new(figsize=panel.size, layout="constrained")
        panel.draw(figure.subplots())
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return _for_a_page(file.getvalue(), panel.title)


def png(figure: Figure, path: Path) -> None:
    """Write a figure with its legend, black on white. Raises UserError if that is impossible."""
    width, height = sum(panel.size[0] for panel in figure.panels), max(panel.size[1] for panel in figure.panels)
    longest = max((len(plain(style.label)) for style in figure.styles), default=0)
    columns = max(1, min(len(figure.styles), int(width / (0.6 + 0.08 * longest))))  # inches
    lines = -(-len(figure.styles) // columns)
    with _matplotlib(figure.name, "#000000", "#d4d4d4") as new:
        drawn = new(figsize=(width, height + 0.3 + 0.22 * lines), layout="constrained")
        for panel, axes in zip(figure.panels, drawn.subplots(1, len(figure.panels), squeeze=False)[0]):
            panel.draw(axes)
        drawn.suptitle(plain(figure.title))
        if figure.styles:
            handles = [_handle(style, figure.marks) for style in figure.styles]
            labels = [plain(style.label) for style in figure.styles]
            drawn.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        try:
            drawn.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def lines(axes: Axes, bands: Sequence[tuple[Style, Optional[Band]]], steps: bool = False) -> None:
    """Draw means as lines, and from the lowest to the highest as bands; a single point as its mark."""
    for style, band in bands:
        if band is None:
            continue
        (line,) = axes.plot(band.at, band.mean, color=style.colour, linestyle=style.line, linewidth=1.4)
        if len(band.at) == 1:
            line.set(marker=style.mark, markersize=5)
        if steps:
            line.set_drawstyle("steps-post")
        if (band.high > band.low).any():
            filled = axes.fill_between(band.at, band.low, band.high, step="post" if steps else None)
            filled.set(color=style.colour, alpha=0.16, linewidth=0)


def marks(axes: Axes, style: Style, runs: Sequence[tuple[float, float]], mean: tuple[float, float]) -> None:
    """Draw a group's runs as small marks, and their mean as a large one."""
    axes.plot([x for x, _ in runs], [y for _, y in runs], style.mark, color=style.colour, ms=3.5, alpha=0.6)
    axes.plot([mean[0]], [mean[1]], style.mark, color=style.colour, ms=8)


def logarithmic(axes: Axes) -> None:
    """Have equal factors be equal steps across, and say numbers as 0.1, 1, 10; on a short way also those between."""
    axes.set_xscale("log")
    ticker = importlib.import_module("matplotlib.ticker")
    left, right = axes.get_xlim()
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    if right < 200 * left:
        axes.xaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5) if right > 10 * left else (2, 3, 4, 5, 6, 8)))
        axes.xaxis.set_minor_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def named(axes: Axes, points: Sequence[tuple[Style, float, float]]) -> None:
    """Write the groups' names beside points, when all else is drawn; below each other where they would meet."""
    axes.autoscale_view()
    (left, _), (right, _) = axes.transAxes.transform([(0, 0), (1, 1)])
    taken: list[tuple[float, float]] = []
    for style, x, y in sorted(points, key=lambda point: -point[2]):
        across, up = axes.transData.transform((x, y))
        at_right = across > left + 0.6 * (right - left)
        wanted = up + 8 * axes.figure.dpi / 72
        while any(
            abs(wanted - other) < 11 * axes.figure.dpi / 72 and abs(across - there) < 0.5 * (right - left)
            for there, other in taken
        ):
            wanted -= 1
        taken.append((across, wanted))
        axes.annotate(
            plain(style.label),
            (x, y),
            xytext=(-7 if at_right else 7, (wanted - up) * 72 / axes.figure.dpi),
            textcoords="offset points",
            ha="right" if at_right else "left",
            va="center",
            fontsize=8,
        )


def ink() -> str:
    """Return the colour of what is neither a group nor a grid."""
    return str(importlib.import_module("matplotlib").rcParams["text.color"])


def plain(text: str) -> str:
    """Return a label as matplotlib shows it: no longer than LONGEST, and its dollars are no formulas."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return " ".join(short.split()).replace("$", r"\$")


@contextmanager
def _matplotlib(name: str, text: str, grid: str) -> Iterator[Callable[..., Any]]:
    """matplotlib's Figure, with our own settings and nobody else's while inside."""
    needed()
    matplotlib, figure = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that its font lacks; axes without room
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": name,
                "font.size": 9.5,
                "text.color": text,
                "axes.edgecolor": text,
                "axes.labelcolor": text,
                "figure.titlesize": 11,
                "xtick.minor.size": 3.5,
                "xtick.minor.pad": 3.5,
                "axes.linewidth": 0.6,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": grid,
                "grid.linewidth": 0.6,
                "xtick.color": text,
                "ytick.color": text,
                "path.simplify": False,
            }
        )
        yield figure.Figure


def _handle(style: Style, mark: bool) -> Any:
    line = importlib.import_module("matplotlib.lines").Line2D
    if mark:
        return line([], [], color=style.colour, linestyle="none", marker=style.mark)
    return line([], [], color=style.colour, linestyle=style.line, linewidth=1.6)


def _rounded(number: re.Match[str]) -> str:
    """Return a number of points, with tenths."""
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _lighter(tag: str, used: set[str]) -> str:
    """Return a tag in the page's colours and font, without an id that is not `used`."""
    tag = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", tag)
    tag = PLACES.sub(lambda attribute: NUMBER.sub(_rounded, attribute[0]), tag)
    tag = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return tag.replace(INK, "currentColor").replace(GRID, "var(--grid)")


def _for_a_page(text: str, title: str) -> str:
    """Return matplotlib's SVG without what a page does not need: headers, ids that nothing refers to, digits."""
    element = text[text.index("<svg") :]
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.S)
    used = set(re.findall(r"#([\w.-]+)[)\"]", element))
    element = TAG.sub(lambda tag: _lighter(tag[0], used), element)
    element = re.sub(r"\n\s*", "\n", element)
    box = re.search(r'viewBox="[^"]+"', element)
    assert box is not None, "matplotlib's SVG has a viewBox"
    end = element.index(">") + 1
    head = f'<svg {box[0]} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    return head + element[end:].strip()
