"""Tables as Markdown, for a page: in a file of their own, or in the places that a page has for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from halos.compare.tables import Table
from halos.errors import UserError
from halos.observers.files import replacing

PLACE = re.compile(r"(<!-- tables (\S+) -->\n).*?(<!-- end -->)", re.S)


def write(path: Path, tables: Sequence[Table], place: str) -> None:
    """Put tables into `path`, between `<!-- tables PLACE -->` and the next `<!-- end -->`.

    A file that is not there yet is made, and holds nothing else. Raises UserError for one that has no such place.
    """
    made = "\n\n".join(map(text, tables)) + "\n"
    if not path.exists():
        whole = f"<!-- tables {place} -->\n\n{made}\n<!-- end -->\n"
    else:
        try:
            page = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        found = next((each for each in PLACE.finditer(page) if each[2] == place), None)
        if found is None:
            raise UserError(f"--markdown: {path} has no place `<!-- tables {place} -->` … `<!-- end -->`")
        whole = f"{page[: found.start()]}{found[1]}\n{made}\n{found[3]}{page[found.end() :]}"
    with replacing(path) as temporary:
        temporary.write_text(whole, encoding="utf-8")


def text(table: Table) -> str:
    """Return a table as Markdown: its title, itself, and its notes."""
    lines = [table.heads, [":--", *["--:"] * (len(table.heads) - 1)], *table.rows]
    rows = ["| " + " | ".join(_cell(each) for each in line) + " |" for line in lines]
    notes = [f"({'; '.join(map(_cell, table.notes))})"] if table.notes else []
    return "\n".join([f"*{_cell(table.title)}*", "", *rows, *([""] if notes else []), *notes])


def _cell(words: str) -> str:
    return re.sub(r"([|\\<*_`])", r"\\\1", words.replace("\n", " "))
