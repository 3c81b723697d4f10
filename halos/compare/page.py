"""The page: tables and figures of a comparison as one HTML file that needs nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Optional

from halos.compare.figures.drawing import svg
from halos.compare.figures.figure import Figure
from halos.compare.figures.gallery import figures
from halos.compare.figures.style import swatch
from halos.compare.groups import Group
from halos.compare.tables import Table
from halos.errors import UserError
from halos.observers.files import replacing

NUMBER = re.compile(r"[-+−±<>≥≤~(]*[\d.,]+")  # what a cell that is a number begins with
WIDE = 8.5  # inches: from here on a figure scrolls where a screen is narrow
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #5f6368; --grid: #d9d9de; --paper: #ffffff; --shade: #f5f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --dim: #a3a6ab; --grid: #3b3c40; --paper: #17181a; --shade: #222326 }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 82rem; margin: 0 auto; padding: 1rem clamp(.8rem, 3vw, 2.5rem) 3rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .6em 0 .3em; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.4em 0 .6em; overflow-wrap: anywhere }
p, li { max-width: 75ch; overflow-wrap: anywhere }
figcaption, .notes { color: var(--dim); font-size: .88rem }
nav a { display: inline-block; margin: .1em 1.1em .1em 0; color: inherit }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .3em .8em; text-align: left; border-bottom: 1px solid var(--grid); white-space: nowrap }
thead th { border-bottom: 2px solid var(--grid); font-weight: 600; vertical-align: bottom }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--paper); max-width: 22rem }
tbody th { white-space: normal }
th:only-child { max-width: 75ch; font-weight: inherit }
.number { text-align: right }
tbody tr:hover > * { background: var(--shade) }
.notes { margin: .5em 0; padding: 0; list-style: none }
figure { margin: 0 }
figcaption { max-width: 95ch; margin-top: .6em }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem 1.5rem }
.panels svg { width: 100%; max-width: 40rem; height: auto; display: block }
.one svg { width: 100%; max-width: calc(var(--inches) * 6rem); height: auto; display: block }
.wide svg { min-width: 44rem; max-width: 64rem; width: 100%; height: auto; display: block }
.legend { display: flex; flex-wrap: wrap; gap: .2em 1.4em; padding: 0; margin: .2em 0 .8em }
.legend { list-style: none; font-size: .9rem }
.swatch { height: 10px; margin-right: .5em; vertical-align: middle }
@media print {
  :root { --ink: #000; --dim: #444; --grid: #ccc; --paper: #fff }
  main { max-width: none; padding: 0 } nav { display: none }
  section, figure, tr { break-inside: avoid } .scroll { overflow: visible } table { font-size: .6rem }
  th, td { white-space: normal; padding: .2em .4em } .wide svg { min-width: 0 }
}
"""


def write(
    path: Path,
    title: str,
    tables: Sequence[Table],
    groups: Sequence[Group],
    against: Mapping[str, str],
    target: Optional[float],
) -> None:
    """Write the page, over what is there; `against` has the label of a group's baseline by its own, if it has one.

    Raises UserError without matplotlib, and if it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder")
    with replacing(path) as temporary:
        temporary.write_text("\n".join(_page(title, tables, groups, against, target)) + "\n", encoding="utf-8")


def _page(
    title: str, tables: Sequence[Table], groups: Sequence[Group], against: Mapping[str, str], target: Optional[float]
) -> Iterator[str]:
    found = figures(groups, against, target)
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
    yield f"<h1>{escape(title)}</h1>"
    headings = [(f"table-{number}", table.title) for number, table in enumerate(tables, 1)]
    headings += [(figure.name, figure.title) for figure in found.drawn if not figure.name.startswith("timeline-")]
    headings += [(figure.name, "Timelines") for figure in found.drawn if figure.name.startswith("timeline-")][:1]
    links = (f'<a href="#{place}">{escape(text)}</a>' for place, text in headings)
    yield f"<nav>{' '.join(links)}</nav>"
    for (place, _), table in zip(headings, tables):
        yield from _table(place, table)
    for figure in found.drawn:
        yield from _figure(figure)
    if found.left_out:
        yield "<section><h2>Not drawn</h2>"
        yield from (f"<p>{escape(line)}</p>" for line in found.left_out)
        yield "</section>"
    yield "</main></body></html>"


def _table(place: str, table: Table) -> Iterator[str]:
    yield f'<section id="{place}"><h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>'
    right = [_numbers([row[column] for row in table.rows if column < len(row)]) for column in range(len(table.heads))]
    yield "".join(f'<th scope="col"{_side(number)}>{escape(head)}</th>' for head, number in zip(table.heads, right))
    yield "</tr></thead><tbody>"
    for row in table.rows:
        first, *others = row or ("",)
        cells = "".join(f"<td{_side(number)}>{escape(cell)}</td>" for cell, number in zip(others, right[1:]))
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    if table.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
        yield f'<ul class="notes">{notes}</ul>'
    yield "</section>"


def _numbers(cells: Sequence[str]) -> bool:
    """Whether a column is one of numbers: most of its cells begin with one."""
    return 2 * sum(bool(NUMBER.match(cell)) for cell in cells) > len(
        [cell for cell in cells if cell not in ("", "–", "-")]
    )


def _side(number: bool) -> str:
    return ' class="number"' if number else ""


def _figure(figure: Figure) -> Iterator[str]:
    yield f'<section id="{figure.name}"><h2>{escape(figure.title)}</h2><figure>'
    if figure.styles:
        entries = "".join(f"<li>{swatch(style, figure.marks)}{escape(style.label)}</li>" for style in figure.styles)
        yield f'<ul class="legend">{entries}</ul>'
    inches = figure.panels[0].size[0]
    kind = "panels" if len(figure.panels) > 1 else "scroll wide" if inches > WIDE else "one"
    yield f'<div class="{kind}" style="--inches: {inches:.1f}">'
    for number, panel in enumerate(figure.panels, 1):
        yield svg(panel, f"{figure.name}-{number}")
    yield f"</div><figcaption>{escape(figure.caption)}</figcaption></figure></section>"
