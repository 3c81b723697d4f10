"""One measure of many groups, the values of one key side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.comparison import Comparison
from halos.compare.groups import grouped
from halos.compare.pivot import pivoted
from halos.errors import UserError
from halos.reading.run import read
from tests.compare.made_runs import write_run

SHARES = {("16", "never", "new"): 0.5, ("16", "never", "old"): 0.25, ("16", "often", "new"): 0.0625}


def comparison(folder: Path) -> Comparison:
    """Timing runs of one seed by workers, crashes and method; all of 16 workers."""
    runs = []
    for number, ((workers, crashes, method), share) in enumerate(SHARES.items()):
        labels = {"workers": workers, "crashes": crashes, "method": method}
        summary = {"goodput": share, "simulated_seconds": 7200.0 + 3600.0 * number}
        runs.append(read(write_run(folder / f"{number}", [], labels=labels, executor="timing", summary=summary)))
    return Comparison.of(grouped(runs)[0])


def test_shares_are_percentages_and_what_there_is_no_run_of_is_unknown(tmp_path: Path) -> None:
    found = pivoted(comparison(tmp_path), "goodput:method")
    assert found == ("Goodput, %", ("crashes", "new", "old"), (("never", "50.0", "25.0"), ("often", "6.2", "–")))


def test_all_cells_are_in_one_unit(tmp_path: Path) -> None:
    found = pivoted(comparison(tmp_path), "simulated_seconds:crashes")
    assert found[:2] == ("Simulated seconds, s", ("method", "never", "often"))
    assert found[2] == (("new", "7,200", "14,400"), ("old", "10,800", "–"))


def test_of_a_key_that_all_have_in_common_there_is_one_column(tmp_path: Path) -> None:
    _, heads, rows = pivoted(comparison(tmp_path), "goodput:workers")
    assert (heads, rows[1]) == (("crashes, method", "16"), ("never, old", "25.0"))


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("godput:method", r"--tables godput:method: no measure 'godput' \(did you mean 'goodput'\?\); there are f"),
        ("goodput:metod", r"no key of groups 'metod' \(did you mean 'method'\?\); there are workers, crashes, method$"),
        ("goodput:", r"--tables goodput:: no key of groups ''; there are workers, crashes, method$"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_said(tmp_path: Path, topic: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pivoted(comparison(tmp_path), topic)
