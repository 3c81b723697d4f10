"""Lines of JSON: what is written is what is read back, and what is no number is null."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halos.values.lines import encoded, text_of, written


class Steps(int):
    pass


class Name(str):
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.1, "0.1"), (4.0, "4.0"), (1e-30, "1e-30"), (None, "null"), (math.nan, "null"), (-math.inf, "null")],
)
def test_a_number_is_written_so_that_it_is_read_back_and_anything_else_is_null(value: float | None, said: str) -> None:
    assert text_of([value]) == f"[{said}]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_as_it_was_and_as_python_itself_would(value: float) -> None:
    (again,) = json.loads(text_of([value]))
    assert type(again) is float and again.hex() == value.hex() == json.loads(json.dumps(value)).hex()


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_every_text_is_read_back_as_it_was(text: str) -> None:
    assert json.loads(text_of({text: text})) == {text: text}
    assert encoded([text, text]).count(b"\n") == 2  # line feeds in it are none in the file


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**80, 1208925819614629174706176),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (torch.tensor(2.5), 2.5),
        (Steps(7), 7),
        (Name("here"), "here"),
        (np.float64(math.nan), None),
    ],
)
def test_numbers_of_any_size_and_of_other_libraries_are_numbers_as_well(value: Any, said: Any) -> None:
    assert json.loads(text_of([value])) == [said]


def test_what_is_neither_number_nor_text_is_an_error_that_shows_it() -> None:
    with pytest.raises(TypeError, match=r"a record holds <object object at .*>, which is neither number nor text"):
        text_of([object()])


def test_a_line_that_is_written_at_once_stays_what_it_was() -> None:
    growing = [1]
    line = written(growing)
    growing.append(2)
    assert encoded([line, growing]) == b"[1]\n[1,2]\n"
