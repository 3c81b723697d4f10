"""Bandwidth over time: piecewise constant, and no piece without an end that is later."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos import UserError
from halos.world.bandwidth import Bandwidth, Change, read_changes


def test_a_link_of_which_nothing_is_said_stays_as_it_is() -> None:
    assert Bandwidth(8.0).at(123.0) == (8.0, math.inf)


def test_changes_hold_until_the_next_and_the_last_for_ever() -> None:
    link = Bandwidth(8.0, [(10.0, 4.0), (20.0, 0.0)])
    assert [link.at(time) for time in (0.0, 9.9, 10.0, 20.0, 1e9)] == [
        (8.0, 10.0),
        (8.0, 10.0),
        (4.0, 20.0),
        (0.0, math.inf),
        (0.0, math.inf),
    ]


def test_changes_that_repeat_begin_anew_as_configured() -> None:
    link = Bandwidth(8.0, [(10.0, 4.0)], period=30.0)
    assert [link.at(time) for time in (0.0, 10.0, 29.0, 30.0, 45.0)] == [
        (8.0, 10.0),
        (4.0, 30.0),
        (4.0, 30.0),
        (8.0, 40.0),
        (4.0, 60.0),
    ]


def test_others_take_a_share_and_then_a_number_of_bits_and_never_more_than_there_is() -> None:
    link = Bandwidth(10.0, taken=[(5.0, 15.0, 0.5, 0.0), (10.0, math.inf, 0.0, 3.0), (20.0, 30.0, 0.9, 0.0)])
    assert [link.at(time) for time in (0.0, 5.0, 10.0, 15.0, 20.0, 30.0)] == [
        (10.0, 5.0),
        (5.0, 10.0),
        (2.0, 15.0),
        (7.0, 20.0),
        (0.0, 30.0),
        (7.0, math.inf),
    ]


@given(
    st.lists(st.floats(0.0, 0.999), min_size=1, max_size=4, unique=True).map(sorted),
    st.floats(1e-3, 1e6),
    st.floats(0.0, 1e12),
)
def test_what_it_is_ends_later(shares: list[float], period: float, time: float) -> None:
    """Also where a period is so short, and so much later, that rounding errors are in the way."""
    if time > period * 1e12:
        return
    link = Bandwidth(1.0, [(share * period, float(index + 2)) for index, share in enumerate(shares)], period)
    for _ in range(5):
        _, until = link.at(time)
        assert until > time
        time = until


def test_whether_it_ever_carries_anything_again() -> None:
    assert not Bandwidth(8.0, [(0.0, 0.0)]).ever
    assert Bandwidth(8.0, [(1.0, 0.0)]).ever
    assert Bandwidth(8.0, [(0.0, 0.0), (5.0, 1.0)], period=10.0).ever
    taken = (100.0, math.inf, 0.0, 9.0)  # all, from 100 s on
    assert Bandwidth(8.0, [(5.0, 1.0)], taken=[taken]).ever  # before
    assert not Bandwidth(8.0, [(5.0, 1.0)], period=10.0, taken=[taken]).ever  # but not for ever


def test_a_csv_file_is_read_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    file.write_text("time_s,link,gbps\n0,eu.up,0.5\n\n 60 , us->eu , 0\n", encoding="utf-8")
    assert read_changes(file) == [Change(0.0, "eu.up", 0.5), Change(60.0, "us->eu", 0.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is '', not 'time_s,link,gbps'"),
        ("time,link,gbps\n", "its first line is 'time,link,gbps', not 'time_s,link,gbps'"),
        ("time_s,link,gbps\n1,a\n", "line 2: '1,a' is not a time, a link and a number"),
        ("time_s,link,gbps\n1,a,fast\n", "line 2: '1,a,fast' is not a time, a link and a number"),
        ("time_s,link,gbps\n1,a,1\n-1,a,1\n", "line 3: time_s: -1.0 is not a time of the run"),
        ("time_s,link,gbps\n1,a,nan\n", "line 2: gbps: nan is not zero or a positive number of Gbit/s"),
    ],
)
def test_a_csv_file_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_changes(file)
    assert str(caught.value).endswith(said)


def test_a_csv_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read: No such file or directory"):
        read_changes(tmp_path / "nowhere.csv")
