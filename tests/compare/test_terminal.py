"""Tables on terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from halos.compare.tables import Table
from halos.compare.terminal import show

TABLE = Table(
    "Losses [all]",
    ("", "100 steps", "200 steps", "400 steps that all of them have reached"),
    (
        ("DiLoCo, by_speed, moderate [x]", "4.500 ± 1.414", "4.000 ± 1.414", "3.000 ± 1.414"),
        ("async", "4.750 ± 1.414", "4.500 ± 1.414", "–"),
    ),
    ("a note",),
)


def shown(width: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    show("2 runs", [TABLE], ["a run is missing"], console)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_terminal_has_it_as_it_is() -> None:
    assert shown(100)[:3] == ["2 runs", "", "Losses [all]"]
    (row,) = [line for line in shown(100) if line.startswith("DiLoCo")]
    assert row.split("  ") == ["DiLoCo, by_speed, moderate [x]", "4.500 ± 1.414", "4.000 ± 1.414", "3.000 ± 1.414"]
    assert shown(100)[-4:] == ["a note", "", "To be known", "a run is missing"]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_no_line_is_longer_and_no_number_is_lost(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(cell in text for row in TABLE.rows for cell in row[1:])


def test_columns_that_do_not_fit_follow_below_with_the_names_again() -> None:
    lines = shown(60)
    assert [line for line in lines if line.startswith("Losses")] == ["Losses [all]", "Losses [all], continued"]
    assert sum(line.startswith("async") for line in lines) == 2


def test_a_terminal_without_such_signs_has_others() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show("‖Δ‖", [TABLE], ["ä"], Console(file=out, width=100, highlight=False, markup=False, emoji=False))
    out.seek(0)
    text = out.read()
    assert text.startswith("|Delta|\n") and "4.500 +- 1.414" in text and text.endswith("\n?\n")
