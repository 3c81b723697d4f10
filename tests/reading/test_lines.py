"""Files of records: whole lines, in order, wherever they are cut; a half line at the end is not there yet."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from halos.errors import UserError
from halos.reading import lines
from halos.reading.lines import batches


def read(path: Path) -> list[object]:
    return [record for batch in batches(path) for record in batch]


@pytest.mark.parametrize("block", [1, 7, 10, 1000])
def test_lines_are_whole_however_the_file_is_read(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n{"a": "ä, ,{"}\n{"a": [2]}\n{"a": 3', encoding="utf-8")
    assert read(file) == [{"a": 1}, {"a": "ä, ,{"}, {"a": [2]}]


def test_nothing_is_in_a_file_that_is_empty_or_missing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "half.jsonl").write_text('{"a": 1}')
    assert [read(tmp_path / name) for name in ("x.jsonl", "none.jsonl", "half.jsonl")] == [[], [], []]


@pytest.mark.parametrize("bad", ["{", "[1]", "", "1, {}", '{"a":' + 100_000 * "[", '{"a": 1}, {"a": 2}', "\xff"])
@pytest.mark.parametrize("block", [4, 1000])
def test_a_damaged_line_is_named(bad: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2}\n' + bad.encode("latin-1") + b'\n{"a": 4}\n')
    with pytest.raises(UserError, match=r"x\.jsonl, line 3: is no record"):
        read(file)


def test_the_collector_of_garbage_is_on_or_off_as_before(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert gc.isenabled() and read(tmp_path / "x.jsonl") == [{}] and gc.isenabled()
    gc.disable()
    try:
        assert read(tmp_path / "x.jsonl") == [{}] and not gc.isenabled()
    finally:
        gc.enable()


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(UserError, match=r"x\.jsonl cannot be read: Is a directory"):
        read(tmp_path / "x.jsonl")


def test_what_only_pythons_own_json_takes_is_read_as_it_reads_it(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": NaN, "b": 1e400, "c": "\\ud800"}\n{"a": 9' + 400 * "0" + "}\n")
    one, odd, large = read(tmp_path / "x.jsonl")
    assert (one, large) == ({"a": 1}, {"a": 9 * 10**400})
    assert repr(odd) == "{'a': nan, 'b': inf, 'c': '\\ud800'}"
