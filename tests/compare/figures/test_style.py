"""How groups are told apart."""

from __future__ import annotations

from halos.compare.figures.style import OUTLINES, Style, styles, swatch
from halos.compare.groups import Group

STYLE = Style("a & b", "#2f7ed8", "dashed", "o")


def groups(*values: dict[str, str]) -> list[Group]:
    return [Group(str(number), each, {}) for number, each in enumerate(values)]


def test_thirty_two_groups_look_different() -> None:
    several = styles(groups(*[{}] * 32))
    assert len({(style.colour, style.line) for style in several}) == 32
    assert len({(style.colour, style.mark) for style in several}) == 32
    assert len({style.colour for style in several[:8]}) == len({style.mark for style in several[:8]}) == 8
    assert styles([]) == []


def test_a_grid_of_two_keys_has_its_colours_by_one_and_its_lines_by_the_other() -> None:
    """Five methods at two speeds: ten groups, five colours, two lines."""
    grid = [{"speed": speed, "method": method} for speed in ("even", "uneven") for method in "abcde"]
    several = {(each["speed"], each["method"]): style for each, style in zip(grid, styles(groups(*grid)))}
    assert len({(style.colour, style.line) for style in several.values()}) == 10
    for method in "abcde":
        even, uneven = several["even", method], several["uneven", method]
        assert even.line == uneven.line or even.colour == uneven.colour
    colours, kinds = ({getattr(style, name) for style in several.values()} for name in ("colour", "line"))
    assert (len(colours), len(kinds)) == (5, 2)


def test_a_grid_of_more_than_two_keys_is_told_apart_by_place() -> None:
    cube = [{"a": a, "b": b, "c": c} for a in "123" for b in "123" for c in "123"]
    assert len({(style.colour, style.line) for style in styles(groups(*cube))}) == 27


def test_a_swatch_shows_the_line_or_the_mark() -> None:
    line, mark = swatch(STYLE, mark=False), swatch(STYLE, mark=True)
    assert 'stroke-dasharray="7 3"' in line and 'stroke="#2f7ed8"' in line
    assert OUTLINES["o"] in mark and 'fill="#2f7ed8"' in mark
    assert "dasharray" not in swatch(Style("a", "#111111", "solid", "o"), mark=False)
