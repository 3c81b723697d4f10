"""The line that says how far something is (what a run has in it: test_progress.py)."""

from __future__ import annotations

import io
import sys

import pytest

from halos.observers.line import Line

PARTS = [(1, "name"), (0, "12/40 cells"), (2, "3 min left")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Terminal:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    return stderr


@pytest.mark.parametrize(
    ("columns", "shown"), [(80, "name | 12/40 cells | 3 min left"), (21, "name | 12/40 cells"), (12, "12/40 cells")]
)
def test_what_matters_least_is_left_out_first(columns: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch, columns)
    Line().write(PARTS)
    assert stderr.getvalue() == f"\r\x1b[2K{shown}"


def test_what_had_no_room_stays_out_until_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch, 21)
    line = Line()
    line.write(PARTS)
    line.write([(1, "n"), (0, "1/4"), (2, "3 s")])
    line.write([(1, "n"), (0, "1/4"), (2, "3 s")], last=True)
    assert stderr.getvalue().split("\r\x1b[2K")[1:] == ["name | 12/40 cells", "n | 1/4", "n | 1/4 | 3 s\n"]


def test_elsewhere_it_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = Line()
    for now[0] in (1.0, 9.9, 10.0, 15.0, 20.0):
        line.write_if_due(lambda at: [(0, f"{at:g} s")], now[0])
    assert capsys.readouterr().err == "10 s\n20 s\n"


def test_nobody_watching_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    line = Line()
    line.write(PARTS)
    line.write_if_due(lambda at: pytest.fail("nobody is there"), 1e9)
