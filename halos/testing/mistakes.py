"""Tables of mistakes as tests: what is given to the command, and the one line that it says to that."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from halos.config.layers import merge
from halos.config.yaml_text import to_yaml
from halos.run.cli import main
from halos.testing.recording import TINY


class Row(NamedTuple):
    """A line of a table whose first columns are `given` and `said`, where … is anything; the heading above it."""

    section: str
    given: str
    said: str


class MistakeTable:
    """A pytest class to inherit from: `class TestMistakes(MistakeTable): plugins = ["halos_mine"]`.

    Every row of `mistakes.md`, beside the test file, is a test: its arguments, added to the smallest run there is
    (`halos.testing.TINY`), end it with exit code 2, the line after `error: `, and nothing written.
    """

    plugins: ClassVar[Sequence[str]] = ()  # files or modules, as for --plugin
    table: ClassVar[str] = "mistakes.md"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """The test that takes a `row` runs once for each."""
        if "row" in metafunc.fixturenames:
            found = rows(Path(inspect.getfile(type(self))).with_name(self.table))
            assert found, f"{self.table} has no table whose columns are `given` and `said`"
            metafunc.parametrize("row", found, ids=[row.given for row in found])

    def test_a_mistake_is_one_line_and_nothing_is_written(
        self, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With these plugins and no others."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(importlib.metadata, "distributions", list)  # to look for installed ones takes longest
        quiet = {"observers": {"progress": False, "tensorboard": False, "trace": False}}
        Path("tiny.yaml").write_text(to_yaml(merge(TINY, quiet)), encoding="utf-8")
        code = main(["tiny.yaml", *spans(row.given), *(f"--plugin={name}" for name in self.plugins)])
        out, err = capsys.readouterr()
        assert err == as_said(row, err[:-1]) + "\n"
        assert (code, out, [path.name for path in tmp_path.iterdir()]) == (2, "", ["tiny.yaml"])


def rows(page: Path) -> list[Row]:
    """The rows of all such tables on a page, each with the heading it stands under."""
    found, section, inside = [], "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not line.startswith("|"):
            inside = False
        elif line.startswith("| given | said |"):
            inside = True
        elif inside and not line.startswith("|---"):
            given, said = (cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:3])
            found.append(Row(section, given, said))
    return found


def spans(cell: str) -> list[str]:
    """The code in a cell."""
    return [code for _, code in re.findall(r"(`+)(.*?)\1", cell)]


def as_said(row: Row, line: str, begins: str = "error: ") -> str:
    """`line` if it is what the row says (… being anything), else what the row says: to be compared with `line`."""
    (said,) = spans(row.said)
    fits = re.fullmatch(".*".join(map(re.escape, (begins + said).split("…"))), line)
    return line if fits else begins + said
