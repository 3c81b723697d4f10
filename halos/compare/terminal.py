"""Tables on a terminal, however wide that is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Optional

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from halos.compare.tables import INTERVAL, Table

HEAD = 12  # characters of a line in a head, at least
LABEL = 16  # characters of a group's name that are always shown on one line
BETWEEN = 2  # columns of space
ASCII = {"±": "+-", "–": "-", "‖": "|", "Δ": "Delta", "…": "..."}  # on a terminal that has no others


def show(title: str, tables: Sequence[Table], remarks: Sequence[str], console: Optional[Console] = None) -> None:
    """Print them; a table too wide becomes several, of some of its columns each."""
    console = console or Console(highlight=False, markup=False, emoji=False)  # labels mean their brackets

    def text(words: str, style: str = "") -> Text:
        return Text(_written(words, console.encoding), style)

    console.print(text(title, "bold"))
    for table in tables:
        for number, (heads, rows) in enumerate(_cut(table, console.width)):
            console.print()
            console.print(text(table.title + (", continued" if number else ""), "bold"))
            drawn = Drawn(box=None, padding=(0, BETWEEN, 0, 0), header_style="dim", pad_edge=False)
            drawn.add_column("", overflow="fold")
            for head in heads[1:]:
                drawn.add_column(text(head), justify="right", no_wrap=True)
            for row in rows:
                drawn.add_row(*map(text, row))
            console.print(drawn)
        for note in table.notes:
            console.print(text(note, "dim"))
    if remarks:
        console.print()
        console.print(text("To be known", "bold"))
        for remark in remarks:
            console.print(text(remark))


def _written(words: str, encoding: str) -> str:
    """The words as a terminal of this encoding can show them."""
    try:
        words.encode(encoding)
    except UnicodeEncodeError:
        for sign, plain in ASCII.items():
            words = words.replace(sign, plain)
        return words.encode(encoding, "replace").decode(encoding)
    return words


def _cut(table: Table, width: int) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Heads and rows of as many columns as fit each time, the groups' names always among them."""
    names = max((len(row[0]) for row in table.rows), default=0)
    heads, widths = [], []
    for i in range(1, len(table.heads)):
        cells = max(len(row[i]) for row in table.rows)
        heads.append("\n".join(textwrap.wrap(table.heads[i], max(HEAD, cells))))
        widths.append(BETWEEN + max(cells, *map(len, heads[-1].split("\n"))))
    left = width - min(names, max(LABEL, width // 3))
    # What is an interval of something stays with that.
    starts = [i for i, head in enumerate(table.heads[1:]) if head != INTERVAL] + [len(widths)]
    start = 0
    while start < len(widths):
        fits = [end for end in starts if end > start and sum(widths[start:end]) <= left]
        end = fits[-1] if fits else next(end for end in starts if end > start)
        yield ["", *heads[start:end]], [[row[0], *row[start + 1 : end + 1]] for row in table.rows]
        start = end
