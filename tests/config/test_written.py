"""Sections, lists and texts that were written: equal to plain ones, and remembering more."""

from __future__ import annotations

import copy
from pathlib import Path

from halos.config.written import Items, Layer, Spelled, Written, as_text, at, inside, others, plain, texts, written

SEVEN = Spelled(7, "007")


def test_a_section_is_equal_to_a_plain_one_and_knows_how_its_values_were_spelled() -> None:
    section = Layer([("a", SEVEN), ("b", Items([Spelled(True, "yes"), "x"])), ("c", 1.5)])
    assert section == {"a": 7, "b": [True, "x"], "c": 1.5}
    assert at(section, "a") == SEVEN and at(section["b"], 0) == Spelled(True, "yes")
    assert at(section, "c") == 1.5 and at(section["b"], 1) == "x" and at({"a": 7}, "a") == 7
    assert dict(inside(section))["a"] == SEVEN and list(inside("text")) == []
    assert copy.deepcopy(section).spelled == {"a": "007"}


def test_a_value_that_is_put_in_another_s_place_is_spelled_as_itself() -> None:
    section = Layer([("a", SEVEN)])
    section.put("a", 8)
    assert at(section, "a") == 8
    section.put("a", SEVEN)
    assert at(section, "a") == SEVEN


def test_plain_values_remember_nothing_and_texts_are_as_they_are_spelled() -> None:
    section = Layer([("a", SEVEN), ("b", Items([Spelled(None, "~"), Spelled(1.1, "1.10")])), ("c", True), ("d", None)])
    assert type(plain(section)) is dict and type(plain(section)["b"]) is list
    assert plain(section) == section
    assert texts(section) == {"a": "007", "b": ["~", "1.10"], "c": "true", "d": "null"}
    assert [as_text(each) for each in (SEVEN, Spelled(None, ""), "x", 3)] == ["007", None, "x", 3]


def test_every_text_in_a_section_remembers_its_folder_and_is_otherwise_the_same(tmp_path: Path) -> None:
    section = Layer([("a", "x"), ("b", Items(["y", {"c": "z"}])), ("d", SEVEN), ("e", None)], {"a": "other"})
    remembered = written(section, tmp_path)
    assert remembered == section and at(remembered, "d") == SEVEN and others(remembered) == {"a": "other"}
    assert remembered["a"].folder == remembered["b"][1]["c"].folder == tmp_path
    assert copy.deepcopy(remembered)["a"].folder == tmp_path
    forgotten = plain(remembered)
    assert forgotten == section
    assert type(forgotten["a"]) is type(forgotten["b"][0]) is str and isinstance(remembered["a"], Written)
