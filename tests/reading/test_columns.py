"""Columns: what JSON has, as arrays of one type each; null is NaN among numbers, and None among the rest."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from halos.errors import UserError
from halos.reading.columns import Columns, Gathering


def gathered(*batches: list[dict[str, Any]], names: tuple[str, ...] = ()) -> Columns:
    gathering = Gathering(names)
    for batch in batches:
        gathering.add(batch)
    return gathering.columns()


@pytest.mark.parametrize(
    ("batches", "kind", "values"),
    [
        ([[1, 2], [3]], "i", [1, 2, 3]),
        ([[1, 2.5]], "f", [1.0, 2.5]),
        ([[1], [2.5]], "f", [1.0, 2.5]),
        ([[1, None], [3]], "f", [1.0, math.nan, 3.0]),
        ([[None], [3]], "f", [math.nan, 3.0]),
        ([[None, None]], "f", [math.nan, math.nan]),
        ([[True], [False]], "b", [True, False]),
        ([[True], [None]], "O", [True, None]),
        ([["a"], ["b"]], "O", ["a", "b"]),
        ([["a"], [None], [None, "b"]], "O", ["a", None, None, "b"]),
        ([["a"], [1]], "O", ["a", 1]),
        ([[[1, 2], [3, 4]], [[]]], "O", [[1, 2], [3, 4], []]),
    ],
)
def test_a_column_has_the_narrowest_type_that_holds_its_values(
    batches: list[list[Any]], kind: str, values: list[Any]
) -> None:
    array = gathered(*([{"x": value} for value in batch] for batch in batches))["x"]
    assert array.dtype.kind == kind and array.shape == (len(values),)
    assert repr(array.tolist()) == repr(values)


def test_sections_become_columns_and_what_a_record_lacks_is_null() -> None:
    columns = gathered([{"a": 1, "m": {"x": 0.5}}, {"a": 2, "m": {"y": 3}}], [{"a": 3}], [{"a": 4, "late": "z"}])
    assert columns.names == ("a", "m.x", "m.y", "late") and len(columns) == 4
    assert columns["a"].tolist() == [1, 2, 3, 4] and list(columns) == list(columns.names)
    assert repr(columns["m.x"].tolist()) == repr([0.5, math.nan, math.nan, math.nan])
    assert repr(columns["m.y"].tolist()) == repr([math.nan, 3.0, math.nan, math.nan])
    assert columns["late"].tolist() == [None, None, None, "z"]


def test_names_are_there_without_a_row_and_without_a_value() -> None:
    assert gathered(names=("a", "b")).names == ("a", "b") and len(gathered(names=("a",))["a"]) == 0
    assert np.isnan(gathered([{"b": 1}], names=("a", "b"))["a"]).tolist() == [True]


def test_rows_are_chosen_by_a_mask_by_indices_or_a_slice() -> None:
    columns = gathered([{"a": 10, "t": "x"}, {"a": 20, "t": "y"}, {"a": 30, "t": "z"}])
    assert columns.where(columns["a"] > 15)["t"].tolist() == ["y", "z"]
    assert columns.where(np.array([2, 0]))["a"].tolist() == [30, 10]
    assert columns.where(slice(None, 1))["a"].tolist() == [10] and len(columns.where(slice(None, 1))) == 1


def test_a_wrong_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no column 'tme' .*did you mean 'time'.*there are time, steps"):
        gathered([{"time": 1, "steps": 2}])["tme"]


def test_a_data_frame_holds_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    frame = gathered([{"a": 1, "t": "x", "l": [1, 2]}, {"a": None, "t": None, "l": []}]).to_pandas()
    assert list(frame.columns) == ["a", "t", "l"] and frame["l"].tolist() == [[1, 2], []]
    assert frame["a"].tolist()[0] == 1.0 and pandas.isna(frame["a"][1]) and pandas.isna(frame["t"][1])


def test_without_pandas_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install 'halos-simulator\[analysis\]'"):
        gathered([{"a": 1}]).to_pandas()


def test_whole_numbers_beyond_63_bits_are_kept_as_they_are() -> None:
    gathering = Gathering()
    gathering.add([{"id": 2**63}, {"id": 3}])
    gathering.add([{"id": 10**400}])
    assert gathering.columns()["id"].tolist() == [2**63, 3, 10**400]


def test_a_key_that_is_a_section_here_and_a_value_there_loses_neither() -> None:
    gathering = Gathering()
    gathering.add([{"a": {"b": 1}}, {"a": 2}, {"a": None}])
    columns = gathering.columns()
    assert columns.names == ("a.b", "a")
    assert repr(columns["a"].tolist()) == "[nan, 2.0, nan]" and repr(columns["a.b"].tolist()) == "[1.0, nan, nan]"
