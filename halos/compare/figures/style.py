"""How each group looks, in every figure and legend: its colour, its line, its mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from halos.compare.groups import Group

# Eight colours that differ in lightness too and can be seen on white and on black, four kinds of line: 32 groups.
COLOURS = ("#2f7ed8", "#e07b00", "#159a6c", "#d1435b", "#9467bd", "#12a5b8", "#97713f", "#858585")
LINES = ("solid", "dashed", "dotted", "dashdot")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
OUTLINES = {  # of these marks, in a square of 10
    "o": "M5 1a4 4 0 1 0 .01 0z",
    "s": "M1.5 1.5h7v7h-7z",
    "^": "M5 1l4 8h-8z",
    "D": "M5 .5l4.5 4.5-4.5 4.5-4.5-4.5z",
    "v": "M5 9l4-8h-8z",
    "P": "M3.5 1h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
    "X": "M1 3l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z",
    "*": "M5 .3l1.2 3.2 3.4.2-2.7 2.1.9 3.3-2.8-1.9-2.8 1.9.9-3.3-2.7-2.1 3.4-.2z",
}


@dataclass(frozen=True)
class Style:
    """How one group looks, in every figure."""

    label: str
    colour: str
    line: str
    mark: str


def styles(groups: Sequence[Group]) -> list[Style]:
    """Return a style for each group: of up to eight another colour, of up to 32 another colour or line.

    More than eight that are told apart by two keys have the colour by one of these and the line by the other.
    """
    numbers = _crossed([group.values for group in groups]) or range(len(groups))
    return [
        Style(group.label, COLOURS[i % 8], LINES[i // 8 % 4], MARKS[(i + i // 8) % 8])
        for i, group in zip(numbers, groups)
    ]


def _crossed(values: Sequence[dict[str, str]]) -> list[int]:
    """Return eight times the place of one key's value plus that of another's, if this tells all apart; else nothing."""
    keys = list(values[0]) if len(values) > 8 else []
    if any(list(each) != keys for each in values):
        return []
    kinds = {key: list(dict.fromkeys(each[key] for each in values)) for key in keys}
    for colour, line in permutations(keys, 2):
        several = {(each[colour], each[line]) for each in values}
        if len(kinds[colour]) <= 8 and len(kinds[line]) <= 4 and len(several) == len(values):
            return [8 * kinds[line].index(each[line]) + kinds[colour].index(each[colour]) for each in values]
    return []


def swatch(style: Style, mark: bool) -> str:
    """Return a group's line, or its mark, as a small SVG element for a page's legend."""
    if mark:
        shape = f'<path d="{OUTLINES[style.mark]}" fill="{style.colour}"/>'
    else:
        dashes = {"solid": "", "dashed": "7 3", "dotted": "1.5 2.5", "dashdot": "7 2 1.5 2"}[style.line]
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        shape = f'<path d="M0 5H30" stroke="{style.colour}" stroke-width="2.5"{dashed}/>'
    return f'<svg class="swatch" viewBox="0 0 {10 if mark else 30} 10" aria-hidden="true">{shape}</svg>'
