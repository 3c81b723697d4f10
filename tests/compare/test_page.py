"""The page: one well-formed file that needs nothing beside it and says everything that the tables say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from halos.compare.page import write
from halos.compare.tables import Table
from halos.errors import UserError
from tests.compare.made_groups import FALLING, group, two

pytest.importorskip("matplotlib")

TABLE = Table(
    "Loss & <cost>",
    ("", "loss", "what & why", "speed-up"),
    (("first", "2.463 ± 0.187", "<b>bold</b>", "–"), ('"second"', "-0.071 ± 0.087", "ünïcødé 中", "3.1×")),
    ("mean ± deviation", "<i>unknown</i> is –"),
)


AGAINST = {"first": "first", "second & <last>": "first"}


class Page(HTMLParser):
    """Elements, checked for being closed in order; texts by the element they are in; attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag != "meta":  # which has no end
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs").mkdir()
    first, second = two(folder / "runs")
    write(folder / "report.html", "A <title> & more", [TABLE, TABLE], [first, second], AGAINST, 3.25)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_is_well_formed_and_holds_every_cell_head_and_note(written: str) -> None:
    page = Page(written)
    cells = page.of("td") + page.of("th")
    for text in (*TABLE.heads[1:], *TABLE.rows[0], *TABLE.rows[1]):
        assert cells.count(text) == 2, text
    assert all(page.of("li").count(note) == 2 for note in TABLE.notes)
    assert page.of("h1") == ["A <title> & more"]
    assert page.of("h2") == [
        *[TABLE.title] * 2,
        "Validation loss",
        "Loss minus that of first",
        "Loss above the final one of first",
        "Drift over time",
        "Drift against loss",
        "Loss against cost",
        "Timeline: first",
        "Timeline: second & <last>",
    ]
    assert "is the target, 3.25." in page.of("figcaption")[0]


def test_it_asks_for_nothing_from_anywhere(written: str) -> None:
    page = Page(written)
    assert "http" not in written and "@import" not in written and "<script" not in written and "url(http" not in written
    assert not [each for each in page.attributes if each[1] in ("src", "srcset", "data") or each[0] in ("link", "img")]
    links = [value for tag, name, value in page.attributes if name in ("href", "xlink:href")]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert links and all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} | set(re.findall(r"url\(#([^)]+)\)", written)) <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_figure_has_a_caption_and_every_picture_a_title(written: str) -> None:
    page = Page(written)
    assert len(page.of("figcaption")) == 8
    pictures = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(pictures) == 3 + 1 + 3 + 2 + 2 + 2 + 2
    assert page.of("title") == ["A <title> & more", *pictures]
    assert "timeline of second & <last>, seed 1" in pictures


def test_numbers_stand_at_the_right(written: str) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", written, re.S)
    assert [re.findall(r"<t[dh][^>]*?(number)?\"?>", row) for row in rows[1:3]] == [["", "number", "", "number"]] * 2


def test_the_same_runs_are_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    only = group(tmp_path / "runs", "only", FALLING)
    for name in ("one", "two"):
        write(tmp_path / name, "title", [TABLE], [only], {}, None)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "runs", "two"]


def test_what_is_not_known_is_said_and_not_drawn(tmp_path: Path) -> None:
    going = group(tmp_path, "going", [], executor="timing", finished=None, updates=[], commits=[])
    write(tmp_path / "report.html", "t", [], [going], {}, None)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.of("h2") == ["Not drawn"] and page.of("figcaption") == []
    assert "Loss: no run has a validation loss, as no timing run has." in page.of("p")


def test_where_it_cannot_be_written_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report\.html cannot be written: No such file"):
        write(tmp_path / "nowhere" / "report.html", "t", [], [], {}, None)
    with pytest.raises(UserError, match="cannot be written: it is a folder"):
        write(tmp_path, "t", [], [], {}, None)
