"""Tables as Markdown: in a page's place for them, and nothing else of it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.markdown import write
from halos.compare.tables import Table
from halos.errors import UserError

TABLES = [Table("Loss", ("", "at 1 | 2"), (("a*b", "0.5 ± 0.1"), ("c", "–")), ("n", "m")), Table("x", ("",), (("y",),))]
MADE = r"""
*Loss*

|  | at 1 \| 2 |
| :-- | --: |
| a\*b | 0.5 ± 0.1 |
| c | – |

(n; m)

*x*

|  |
| :-- |
| y |

"""


def test_tables_go_into_their_place_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n<!-- tables a -->\nold\n<!-- end -->\n\n<!-- tables b -->\n<!-- end -->\nlast\n")
    write(page, TABLES, "b")
    assert page.read_text() == (
        f"# One\n\n<!-- tables a -->\nold\n<!-- end -->\n\n<!-- tables b -->\n{MADE}<!-- end -->\nlast\n"
    )
    write(page, TABLES, "b")
    write(page, TABLES, "a")
    assert page.read_text() == (
        f"# One\n\n<!-- tables a -->\n{MADE}<!-- end -->\n\n<!-- tables b -->\n{MADE}<!-- end -->\nlast\n"
    )
    with pytest.raises(UserError, match=r"page\.md has no place `<!-- tables c -->`"):
        write(page, TABLES, "c")


def test_a_new_file_holds_them_and_their_place(tmp_path: Path) -> None:
    write(tmp_path / "new.md", TABLES, "a")
    assert (tmp_path / "new.md").read_text() == f"<!-- tables a -->\n{MADE}<!-- end -->\n"
    write(tmp_path / "new.md", TABLES[1:], "a")
    assert "Loss" not in (tmp_path / "new.md").read_text()
