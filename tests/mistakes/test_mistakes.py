"""The tables beside this file and in docs/mistakes.md, row by row: what is given to the command, and what it says.

What is given is an argument (or several), added to `python -m halos.run tiny.yaml` (or to `python -m
halos.utilization curves.yaml`, in utilization.md); or a whole command line; or described in words, and then brought
about by bad_inputs.py or bad_runs.py. In what is said, … is anything. Rows about a plugin's sections are in its tests.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from halos.compare import cli as compare
from halos.export import __main__ as export
from halos.plugins.registry import KINDS, Plugins
from halos.run import cli as run
from halos.sweep import cli as sweep
from halos.testing.mistakes import Row, as_said, rows, spans
from halos.utilization import __main__ as utilization
from tests.mistakes import bad_inputs, bad_runs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "setup.cfg").exists())
MAINS = {
    "halos.run": run.main,
    "halos.sweep": sweep.main,
    "halos.utilization": utilization.main,
    "halos.export": export.main,
    "halos.compare": compare.main,
}
PREPARED = {**bad_inputs.PREPARED, **bad_runs.PREPARED}
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # as Python has it


def in_words(cell: str) -> bool:
    return re.sub(r"(`+).*?\1", "", cell).strip() != ""


PAGES = [ROOT / "docs/mistakes.md", *sorted(HERE.glob("*.md"))]
ROWS = [row for page in PAGES for row in rows(page)]
FILES = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.yaml")}
UNDER_WAY, STOPS, WARNINGS = "While a run is under way", "Runs that stop", "Warnings"
UTILIZATION = "`halos.utilization`"


def said_in(*sections: str) -> list[Any]:
    return [pytest.param(row, id=f"{row.section}: {row.given}") for row in ROWS if row.section in sections]


# Running a row


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    changed: list[str]  # files and folders


def contents() -> dict[str, bytes | None]:
    found = [path for path in Path().rglob("*") if "__pycache__" not in path.parts]
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


Give = Callable[[Row], Answer]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run with checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(importlib.metadata, "distributions", list)
        bad_inputs.write("tiny.yaml", FILES["tiny.yaml"])
        assert run.main(["tiny.yaml", "checkpoint.every_local_steps=4", "checkpoint.keep=2"]) == 0
        return {name: content for name, content in contents().items() if content is not None and "runs" in name}


@pytest.fixture
def give(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    finished: dict[str, bytes],
) -> Iterator[Give]:
    """What a row describes, in a working directory with the files beside the tables: what the command does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.metadata, "distributions", list)  # to look for installed plugins takes longest
    stack = ExitStack()

    def answer(row: Row) -> Answer:
        for name, text in FILES.items():
            bad_inputs.write(name, text)
        for name, content in (
            finished.items() if re.search("--resume|halos.export|halos.compare", row.section + row.given) else ()
        ):
            bad_inputs.write(name, content)
        main, words = run.main, PREPARED[row.given](monkeypatch, stack) if in_words(row.given) else spans(row.given)
        if row.section == UTILIZATION:
            main = utilization.main
        if words[0].startswith("python -m "):
            _, _, program, *words = shlex.split(words[0])
            main = MAINS[program]
        elif not in_words(row.given):
            words = ["tiny.yaml" if main is run.main else "curves.yaml", *words]
        before = contents()
        capsys.readouterr()
        caplog.clear()
        try:
            code = main(words)
        except SystemExit as stop:  # argparse's way of ending
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        after = contents()
        changed = sorted(name for name in {*before, *after} if before.get(name, "") != after.get(name, ""))
        return Answer(code, out, err, changed)

    with stack:
        yield answer


def one_line(got: Answer) -> str:
    assert got.err.count("\n") == 1 and got.err.endswith("\n"), got.err
    assert got.out == ""
    return got.err[:-1]


def finished_as() -> str:
    (path,) = Path("runs").glob("*/summary.json")
    return str(json.loads(path.read_text(encoding="utf-8"))["finished"])


BEFORE = dict.fromkeys(row.section for row in ROWS if row.section not in (UNDER_WAY, STOPS, WARNINGS))


@pytest.mark.parametrize("row", said_in(*BEFORE))
def test_a_mistake_is_one_line_and_nothing_is_written(
    row: Row, give: Give, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    got = give(row)
    line = one_line(got)
    assert line == as_said(row, line)
    assert (got.code, got.changed) == (2, [])
    warnings = [str(each.message) for each in recwarn if not issubclass(each.category, SILENT)]
    assert (caplog.text, warnings) == ("", []), "these would be lines on stderr as well"


@pytest.mark.parametrize("row", said_in(UNDER_WAY))
def test_one_that_comes_to_light_during_the_run_is_in_its_summary_too(row: Row, give: Give) -> None:
    got = give(row)
    line = one_line(got)
    assert line == as_said(row, line)
    assert (got.code, finished_as()) == (2, line.replace("error: ", "failed: ", 1))


@pytest.mark.parametrize("row", said_in(STOPS))
def test_a_run_that_stops_says_why_and_keeps_its_records(row: Row, give: Give) -> None:
    got = give(row)
    line = one_line(got)
    assert line == as_said(row, line, begins="")
    assert got.code == (130 if line.startswith("interrupted; ") else 1)
    reason = finished_as().removeprefix("failed: ").removeprefix("diverged: ")
    assert reason == "interrupted" if got.code == 130 else reason in line
    assert {"runs/run/config.yaml", "runs/run/evaluations.jsonl", "runs/run/summary.json"} <= set(got.changed)


@pytest.mark.parametrize("row", said_in(WARNINGS))
def test_a_warning_is_a_line_of_its_own_and_the_run_goes_on(
    row: Row, give: Give, caplog: pytest.LogCaptureFixture
) -> None:
    got = give(row)
    lines = {f"{each.levelname}: {each.message}" for each in caplog.records}
    assert lines == {as_said(row, line, begins="") for line in lines} != set()
    assert (got.code, got.err, finished_as()) == (0, "", "True")


# The tables themselves


def test_every_description_is_prepared_and_nothing_else_is() -> None:
    assert not set(bad_inputs.PREPARED) & set(bad_runs.PREPARED)
    described = {row.given for row in ROWS if in_words(row.given)}
    assert described - set(PREPARED) == set(), "rows that nothing is prepared for"
    assert set(PREPARED) - described == set(), "prepared, but no row"


def test_no_row_is_there_twice() -> None:
    seen = [(row.section, row.given) for row in ROWS]
    assert len(seen) == len(set(seen)) > 300


def test_every_line_of_a_table_with_these_columns_is_a_row() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    tables = re.findall(r"^\| given \| said \|.*\n\|-[-|]*\n((?:\|.*\n)+)", text, re.M)
    assert sum(table.count("\n") for table in tables) == len(ROWS)
    assert all(len(spans(row.said)) == 1 and not in_words(row.said) for row in ROWS)


def test_every_plugin_package_has_rows() -> None:
    assert len(PACKAGES) >= 9
    beside = {name for name in PACKAGES if (ROOT / "plugins" / name / "tests/mistakes.md").exists()}
    assert set(PACKAGES) - beside <= {row.given.split()[0] for row in ROWS}, "without a table"


def test_of_every_kind_an_unknown_component_is_told_what_there_is() -> None:
    components = {kind: ", ".join(sorted(known)) or "none" for kind, known in Plugins().components.items()}
    lists = [re.search(r"installed: ([\w, ]+)", row.said) for row in ROWS if row.section.endswith("not installed")]
    assert {found[1].strip() for found in lists if found} == set(components.values())
    assert len(set(components.values())) == len(KINDS)


@pytest.mark.parametrize(
    ("said", "line", "fits"),
    [
        ("`seed: 1.5 is not an integer`", "error: seed: 1.5 is not an integer", True),
        ("`seed: 1.5 is not an integer`", "error: seed: 1.5 is not an integer; so", False),
        ("`seed: 1.5 is not an integer`", "seed: 1.5 is not an integer", False),
        ("`a: … (b)`", "error: a: 1 (b)", True),
        ("`a: … (b)`", "error: a: 1 (c)", False),
        ("``no `x` here``", "error: no `x` here", True),
        ("`a[0]: (.*)`", "error: a0: anything", False),
    ],
)
def test_a_line_fits_only_what_the_page_says(said: str, line: str, fits: bool) -> None:
    assert (as_said(Row("", "", said), line) == line) == fits
