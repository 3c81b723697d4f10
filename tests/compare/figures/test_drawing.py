"""How figures are written: SVG for a page, PNG for a slide."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos.compare.bands import Band
from halos.compare.figures.drawing import LONGEST, lines, logarithmic, marks, named, needed, plain, png, svg
from halos.compare.figures.figure import Figure, Panel
from halos.compare.figures.style import Style
from halos.errors import UserError

pytest.importorskip("matplotlib")


def draw(axes: Any) -> None:
    at = np.array([1.0, 2.0, 4.0])
    lines(axes, [(STYLE, Band(at, at, at - 0.25, at + 0.25)), (STYLE, None)])
    axes.set(xlabel="cost & <more> font: 3px #010203 d='1.234'", ylabel=plain("price in $ and $"))


STYLE = Style("a & b", "#2f7ed8", "dashed", "o")
PANEL = Panel('one "panel" & <another>', draw)
FIGURE = Figure("name", "A figure", "What it shows.", (PANEL, PANEL), (STYLE,))


def test_an_svg_is_an_element_that_takes_the_page_s_colours_and_refers_to_nothing_outside() -> None:
    text = svg(PANEL, "x-1")
    root = ElementTree.fromstring(text.replace(" xlink:href", " href"))
    assert root.tag.endswith("svg") and root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == root[0].text == PANEL.title
    assert "width" not in root.attrib and re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.attrib["viewBox"])
    assert "currentColor" in text and "var(--grid)" in text and STYLE.colour in text
    tags = "".join(re.findall("<[^<>]*>", text))
    assert not any(other in tags for other in ("#010203", "#040506", "#000000", "font-family", "font:"))
    assert "http" not in text and "<metadata" not in text
    words = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"cost & <more> font: 3px #010203 d='1.234'", "price in $ and $", "1.5"} <= words


def test_its_ids_are_its_own_and_each_is_referred_to() -> None:
    one, other = (svg(PANEL, name) for name in ("x-1", "x-2"))
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert all(f"#{name}" in one for name in ids[0])


def test_the_same_figure_is_the_same_bytes_whatever_matplotlibrc_says(tmp_path: Path) -> None:
    import matplotlib

    before = svg(PANEL, "x-1")
    png(FIGURE, tmp_path / "before.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert svg(PANEL, "x-1") == before
        png(FIGURE, tmp_path / "after.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "after.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_a_png_shows_lines_bands_and_legend_on_white(tmp_path: Path) -> None:
    import matplotlib.image

    png(FIGURE, tmp_path / "name.png")
    pixels = (matplotlib.image.imread(tmp_path / "name.png")[..., :3] * 255).round().astype(int)
    height, width, _ = pixels.shape
    assert width == 150 * 2 * 4.6 and height > 150 * 3.3
    assert (pixels[0, 0] == 255).all()
    blue = (pixels == [0x2F, 0x7E, 0xD8]).all(-1)
    for part in (blue[:-60, : width // 2], blue[:-60, width // 2 :], blue[-60:]):  # both panels, and the legend
        assert part.sum() > 20
    assert ((pixels < 60).all(-1)).sum() > 500  # letters


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "name.png").mkdir()
    with pytest.raises(UserError, match=r"name\.png cannot be written: Is a directory"):
        png(FIGURE, tmp_path / "name.png")


def test_a_label_is_no_formula_and_not_too_long() -> None:
    assert plain("a $x$ b") == r"a \$x\$ b"
    assert plain("a\nb") == "a b"
    assert plain("x" * LONGEST) == "x" * LONGEST
    assert plain("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"


def drawn_axes() -> Any:
    from matplotlib.figure import Figure as Drawn

    return Drawn().subplots()


def test_runs_are_small_marks_and_their_mean_is_a_large_one() -> None:
    axes = drawn_axes()
    marks(axes, STYLE, [(1.0, 2.0), (3.0, 6.0)], (2.0, 4.0))
    small, large = axes.lines
    assert [tuple(map(list, line.get_data())) for line in (small, large)] == [([1.0, 3.0], [2.0, 6.0]), ([2.0], [4.0])]
    assert small.get_markersize() < large.get_markersize() and small.get_marker() == large.get_marker() == "o"


def test_a_single_point_is_a_mark() -> None:
    axes = drawn_axes()
    lines(axes, [(STYLE, Band(*[np.array([1.0])] * 4))])
    (line,) = axes.get_lines()
    assert line.get_marker() == "o" and not axes.collections


@pytest.mark.parametrize(("most", "shown"), [(5.0, "1 2 3 4 5"), (100.0, "1 2 5 10 20 50 100")])
def test_a_short_logarithmic_axis_has_numbers_between_powers_of_ten(most: float, shown: str) -> None:
    axes = drawn_axes()
    axes.plot([1.0, most], [0.0, 0.0])
    axes.set_xlim(1.0, most)
    logarithmic(axes)
    axes.figure.canvas.draw()
    both = [*axes.xaxis.get_majorticklabels(), *axes.xaxis.get_minorticklabels()]
    found = {text.get_text() for text in both if 1.0 <= text.get_position()[0] <= most}
    assert set(shown.split()) <= found


def test_names_that_would_meet_are_written_below_each_other() -> None:
    axes = drawn_axes()
    points = [(Style(name, "#111111", "solid", "o"), x, y) for name, x, y in (("a", 0, 1), ("b", 0.01, 1), ("c", 9, 9))]
    axes.plot([0, 0.01, 9], [1, 1, 9], "o")
    named(axes, points)
    offsets = {text.get_text(): text.xyann for text in axes.texts}
    assert offsets["a"][1] - offsets["b"][1] >= 10  # points
    assert offsets["a"][0] > 0 > offsets["c"][0]  # at the right end, to the left


def test_without_matplotlib_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError) as caught:
        needed()
    said = "figures need matplotlib, which is not installed; run: pip install halos-simulator[plot]"
    assert str(caught.value) == said
