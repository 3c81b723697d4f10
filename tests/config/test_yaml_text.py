"""YAML as configurations have it: what is written out is read as the same, and no text does harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.layers import read
from halos.config.written import written
from halos.config.yaml_text import MOST_NESTED, check_depth, parse, to_yaml


def test_written_out_numbers_and_texts_are_read_as_the_same(tmp_path: Path) -> None:
    section = {
        "a": "1e3",
        "b": "007",
        "c": 1e-8,
        "d": float("inf"),
        "e": None,
        "f": [True, "true"],
        "g": 2**62,
        "h": "ä",
    }
    (tmp_path / "c.yaml").write_text(to_yaml(section), encoding="utf-8")
    assert read(tmp_path / "c.yaml") == section


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3", {"a": 0.001}),
        ("a: '1e-3'", {"a": "1e-3"}),
        ("a: ${b}", {"a": "${b}"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("[1, {b: x}]", [1, {"b": "x"}]),
        ("", {}),
        ("words", "words"),
        ("42", "42"),
    ],
)
def test_yaml_becomes_plain_values(text: str, value: object) -> None:
    assert parse(text) == value


def test_values_that_are_no_texts_know_how_they_are_spelled_and_keys_are_texts() -> None:
    parsed = parse(
        "a: 007\n1.10: [0x1F, no, ~, 1_000, 12:30, '8', x]\non: {2024-01-01: yes, 07: }\nb: &x {c: 1e3}\nd: *x"
    )
    assert parsed["a"] == 7 and parsed["1.10"] == [31, False, None, 1000, 750, "8", "x"]
    assert parsed.spelled == {"a": "007"}
    assert parsed["1.10"].spelled == {0: "0x1F", 1: "no", 2: "~", 3: "1_000", 4: "12:30"}
    assert parsed["on"].spelled == {"2024-01-01": "yes", "07": ""}
    assert parsed["b"].spelled == parsed["d"].spelled == {"c": "1e3"}


def test_so_do_those_that_are_merged_into_a_section() -> None:
    parsed = parse("x: &x {a: 01, b: 02}\ny: &y {b: 03, c: 04}\nz: {c: 05, <<: [*x, *y], d: 06}")["z"]
    assert parsed == {"a": 1, "b": 2, "c": 5, "d": 6}
    assert parsed.spelled == {"a": "01", "b": "02", "c": "05", "d": "06"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 2, column 1: did not find expected ',' or ']'"),
        ("a: 1\na: 2", "line 2, column 1: found duplicate key a"),
        ("a: !!bool much", r"a value does not fit its tag \(!!…\)"),
        ("1: a\n0x1: b", "two keys of a section mean the same"),
        ("a: &a [*a]", "line 1, column 4: YAML recursive aliases"),
        ("[" * (MOST_NESTED + 1), "line 1: nested more than 50 deep"),
    ],
)
def test_what_is_no_yaml_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_sections_may_be_nested_to_a_depth_that_is_enough() -> None:
    check_depth("[" * MOST_NESTED + "]" * MOST_NESTED)
    with pytest.raises(ValueError, match=r"^line 3: nested more than 50 deep$"):
        check_depth("\n\n" + "[" * (MOST_NESTED + 1) + "]" * (MOST_NESTED + 1))


def test_texts_of_files_are_written_as_any_other(tmp_path: Path) -> None:
    section = {"a": "1e3", "b": ["x", "true"], "c": {"d": "${e}"}}
    assert to_yaml(written(section, tmp_path)) == to_yaml(section) == "a: '1e3'\nb:\n- x\n- 'true'\nc:\n  d: ${e}\n"
