"""The amounts at which losses are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.amounts import Amounts, amounts
from halos.errors import UserError
from tests.compare.made_comparison import GB, QUICK, SLOW, make


def test_by_default_shares_of_what_all_have_reached_and_when_the_baseline_had_trained_that(tmp_path: Path) -> None:
    assert amounts(make(tmp_path), []) == [
        Amounts("tokens", (1000.0, 2000.0, 4000.0)),
        Amounts("seconds", (5.0, 10.0, 40.0)),
        Amounts("bytes", (1.0 * GB, 2.0 * GB)),
    ]


def test_what_is_asked_for_takes_their_place(tmp_path: Path) -> None:
    asked = ["steps=50%, 300,1e2", "seconds=done"]
    assert amounts(make(tmp_path), asked) == [Amounts("steps", (100.0, 200.0, 300.0)), Amounts("seconds", (40.0,))]


def test_what_no_run_tells_is_left_out(tmp_path: Path) -> None:
    quiet = {"config": {"observers": {"records": "none"}}}
    found = make(tmp_path, [("quiet", 1, SLOW[1], quiet)])
    assert [each.of for each in amounts(found, [])] == ["tokens", "seconds"]
    assert amounts(found, ["bytes=50%", "bytes=1e9"]) == [Amounts("bytes", (1e9,))]


def test_without_one_baseline_for_all_there_is_no_end_of_it(tmp_path: Path) -> None:
    grid = [(m, 1, QUICK[1], {"labels": {"method": m, "H": h}}) for m in ("slow", "quick") for h in (1, 2)]
    assert amounts(make(tmp_path, grid, baseline="slow"), ["seconds=done"]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokns=1", "'tokns' is none of tokens, steps, seconds, bytes (did you mean 'tokens'?)"),
        ("tokens", "'tokens' names no amount; write, for example, tokens=50%,100%"),
        ("tokens=,", "'tokens=,' names no amount; write, for example, tokens=50%,100%"),
        ("bytes=much", "'much' is no number of bytes, no share of what all runs reached (50%), nor done"),
        ("bytes=-1", "'-1' is no number of bytes, no share of what all runs reached (50%), nor done"),
        ("bytes=x%", "'x%' is no number of bytes, no share of what all runs reached (50%), nor done"),
    ],
)
def test_what_is_no_amount_is_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        amounts(make(tmp_path), [text])
    assert str(caught.value) == f"--at: {said}"
