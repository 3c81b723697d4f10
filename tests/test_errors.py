"""Errors say the key, the value and what would be right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from halos.errors import (
    MESSAGE_LENGTH,
    ConfigError,
    Lost,
    UserError,
    did_you_mean,
    from_here,
    in_a_line,
    positive,
    require,
    shown,
    under,
)


def test_a_key_gets_its_sections_in_front() -> None:
    with pytest.raises(ConfigError) as raised, under("policy"), under("outer"):
        require(False, "lr", -1.0, "a positive number")
    assert (raised.value.key, raised.value.problem) == ("policy.outer.lr", "-1.0 is not a positive number")
    assert str(raised.value) == "policy.outer.lr: -1.0 is not a positive number"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("", "empty"), "data: empty"),
        (UserError("no such file"), "data: no such file"),
        (MemoryError("9 GiB"), "data: needs more memory than there is: 9 GiB"),
    ],
)
def test_whatever_mistake_is_made_in_a_section_is_the_sections(error: Exception, said: str) -> None:
    with pytest.raises(ConfigError) as raised, under("data"):
        raise error
    assert str(raised.value) == said


def test_what_is_no_mistake_of_the_users_goes_through() -> None:
    with pytest.raises(ZeroDivisionError), under("data"):
        raise ZeroDivisionError


def test_a_loss_says_who_when_and_why() -> None:
    lost = Lost("job 3", 12.5, "worker 1 was down")
    assert str(lost) == "job 3 lost at 12.5 s: worker 1 was down"
    assert (lost.who, lost.when, lost.why) == ("job 3", 12.5, "worker 1 was down")


def test_a_name_that_is_nearly_right_gets_a_suggestion() -> None:
    assert did_you_mean("dilocoo", ["halos", "diloco"]) == " (did you mean 'diloco'?)"
    assert did_you_mean("x", ["halos", "diloco"]) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a", "'a'"),
        ([1, (2,), {}], "[1, (2,), {}]"),
        ({"a": [1.5, None]}, "{'a': [1.5, null]}"),
        (True, "true"),
        ("x" * 200, f"'{'x' * 59}… (202 characters)"),
        (list(range(1000)), f"{str(list(range(1000)))[:60]}…"),
        (1 << 20_000, "a number of 20001 bits"),
    ],
    ids=["text", "lists", "dictionary", "truth", "long", "many", "huge"],
)
def test_a_value_is_quoted_as_written_but_not_pages_of_it(value: Any, said: str) -> None:
    assert shown(value) == said


def test_lists_that_hold_each_other_many_times_over_are_quoted_at_once() -> None:
    nested: list[Any] = ["lol"]
    for _ in range(60):
        nested = [nested, nested]  # 2⁶⁰ times
    assert shown(nested) == f"{'[' * 60}…"


def test_a_message_has_an_end() -> None:
    assert str(UserError("x" * 5000)) == "x" * MESSAGE_LENGTH + "…"


def test_a_path_is_said_from_the_working_directory_if_it_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "runs" / "one") == "runs/one"
    assert from_here("/elsewhere/one") == "/elsewhere/one"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0.5, True), (0, False), (-1, False), (math.inf, False), (math.nan, False), (True, False),
     ("1", False), (10**400, False)],
)  # fmt: skip
def test_a_positive_number_is_one_that_a_float_can_hold(value: Any, expected: bool) -> None:
    assert positive(value) is expected


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("not\n  one\tline "), "not one line"), (OSError(), "OSError"), (KeyError("a"), "'a'")],
)
def test_an_errors_own_words_are_one_line_and_never_none(error: Exception, said: str) -> None:
    assert in_a_line(error) == said
