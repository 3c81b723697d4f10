"""Columns: records as one NumPy array a key, all of one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from halos.errors import UserError, did_you_mean

if TYPE_CHECKING:  # whoever only starts a run does not wait for NumPy
    Array = np.ndarray[Any, np.dtype[Any]]

NUMBERS = {int, float, type(None)}


class Columns:
    """Records, a row each: `columns["time"]` is a one-dimensional array, `len(columns)` the number of rows.

    Whole numbers are int64 (beyond 63 bits Python's own), others float64; with nulls among them float64, where null is
    NaN. Texts, lists and what is of several types are Python objects, null is None. The arrays are the columns' own: to
    be read.
    """

    def __init__(self, arrays: Mapping[str, Array], rows: int) -> None:
        self._arrays = dict(arrays)
        self._rows = rows

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the order of the records' keys."""
        return tuple(self._arrays)

    def __len__(self) -> int:
        return self._rows

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        """Iterate over the columns' names."""
        return iter(self._arrays)

    def __getitem__(self, name: str) -> Array:
        """Return a column [rows]. Raises KeyError, with the names there are."""
        try:
            return self._arrays[name]
        except KeyError:
            there = ", ".join(self._arrays)
            raise KeyError(f"no column {name!r}{did_you_mean(name, self._arrays)}; there are {there}") from None

    def where(self, rows: Union[Array, slice]) -> Columns:
        """Return the rows for which a mask [rows] is true, or those of an array of indices or a slice, in its order."""
        chosen = np.arange(self._rows)[rows]
        return Columns({name: array[chosen] for name, array in self._arrays.items()}, len(chosen))

    def to_pandas(self) -> Any:
        """Return a data frame of the same. Raises UserError without pandas, which the extra `analysis` brings."""
        try:
            import pandas
        except ImportError:
            raise UserError(
                "data frames need pandas: pip install 'halos-simulator[analysis]', or pandas itself"
            ) from None
        return pandas.DataFrame(self._arrays, index=range(self._rows))

    def __repr__(self) -> str:
        return f"<{self._rows:,} rows: {', '.join(self._arrays) or 'no columns'}>"


class Gathering:
    """Columns as they are gathered, batch by batch of records, whose keys and types need not agree."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._pieces: dict[str, list[tuple[int, Array]]] = {name: [] for name in names}  # by name: first row, values
        self._rows = 0

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Take in records, as JSON has them; a section's keys become columns `section.key`."""
        for name, values in _values(records, ""):
            self._pieces.setdefault(name, []).append((self._rows, array_of(values)))
        self._rows += len(records)

    def put(self, rows: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take in so many rows as they are, column by column."""
        for name, values in columns.items():
            self._pieces.setdefault(name, []).append((self._rows, array_of(values)))
        self._rows += rows

    def columns(self) -> Columns:
        """Return what was gathered."""
        return Columns({name: self._joined(pieces) for name, pieces in self._pieces.items()}, self._rows)

    def _joined(self, pieces: Sequence[tuple[int, Array]]) -> Array:
        """Return one array [rows] of pieces that begin at these rows; rows without a value hold null."""
        arrays = [array for _, array in pieces]
        if not arrays:
            return np.full(self._rows, np.nan)
        whole = sum(map(len, arrays)) == self._rows
        kinds = {array.dtype.kind for array in arrays if not _unknown(array)}
        if kinds == {"i"} and whole and not any(_unknown(array) for array in arrays):
            return np.concatenate(arrays)
        if kinds <= {"i", "f"}:
            numbers = np.full(self._rows, np.nan)
            for first, array in pieces:
                numbers[first : first + len(array)] = array
            return numbers
        if kinds == {"b"} and whole and len(arrays) == len([array for array in arrays if array.dtype.kind == "b"]):
            return np.concatenate(arrays)
        objects = np.full(self._rows, None, dtype=object)
        for first, array in pieces:
            if not _unknown(array):
                objects[first : first + len(array)] = (
                    array.astype(object) if array.dtype.kind == "O" else array.tolist()
                )
        return objects


def array_of(values: Sequence[Any]) -> Array:
    """Return values, as JSON has them, as an array [len(values)] of the narrowest type that holds them all."""
    kinds = set(map(type, values))
    if kinds <= NUMBERS:
        with suppress(OverflowError):  # whole numbers beyond 63 bits are kept as they are
            return np.array(values, dtype=np.int64 if kinds == {int} else np.float64)
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    objects = np.empty(len(values), dtype=object)
    objects[:] = values if kinds.isdisjoint((list, dict)) else _held(values)
    return objects


def _held(values: Sequence[Any]) -> Array:
    """Return lists as elements, which NumPy would otherwise take for another dimension."""
    held = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        held[index] = value
    return held


def _unknown(array: Array) -> bool:
    """Whether an array holds nothing but null."""
    return array.dtype.kind == "f" and bool(np.isnan(array).all())


def _values(records: Sequence[dict[str, Any]], above: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield names and values of all keys in records, a section's under its own name; None where there is none."""
    names = records[0].keys() if records else dict[str, Any]().keys()
    if all(record.keys() == names for record in records):
        columns = {name: [record[name] for record in records] for name in names}
    else:
        every = dict.fromkeys(name for record in records for name in record)
        columns = {name: [record.get(name) for record in records] for name in every}
    for name, values in columns.items():
        if dict in set(map(type, values)):
            sections = [value if isinstance(value, dict) else {} for value in values]
            yield from _values(sections, f"{above}{name}.")
            others = [None if isinstance(value, dict) else value for value in values]
            if any(value is not None for value in others):  # a section here, a value there
                yield above + name, others
        else:
            yield above + name, values
