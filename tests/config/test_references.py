"""`${other.key}` is the value of that key, and a text that comes from a file still knows from which."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.config.layers import merge, overrides, read
from halos.config.references import RESOLVED, escaped, interpolate, refers
from halos.config.written import written
from halos.config.yaml_text import Section, parse
from halos.errors import ConfigError, UserError
from tests.outcome import examples


def test_values_may_refer_to_others_and_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUS", "/data")
    section = {"name": "run-${seed}", "seed": 7, "data": {"path": "${oc.env:CORPUS}/a"}}
    assert interpolate(section) == {"name": "run-7", "seed": 7, "data": {"path": "/data/a"}}
    with pytest.raises(ConfigError, match=r"^data\.path: Interpolation key 'nowhere' not found$"):
        interpolate({"data": {"path": "${nowhere}"}})


def test_references_may_be_relative_and_to_positions() -> None:
    first = {"name": "a", "workers": [1.0, 0.5]}
    second = {"name": "${..[0].name}b", "workers": "${cluster.regions[0].workers}"}
    resolved = interpolate({"cluster": {"regions": [first, second]}})
    assert resolved == {"cluster": {"regions": [first, first | {"name": "ab"}]}}


def test_a_key_made_of_references_is_refused_by_the_key_it_is_at() -> None:
    with pytest.raises(ConfigError, match=r"^policy\.name: a key in \$\{…\} cannot hold another"):
        interpolate({"which": "b", "b": "diloco", "policy": {"name": "${${which}}"}})


def test_without_references_a_section_is_what_it_was() -> None:
    section = {"a": 1, "b": {"c": ["$", "{}", "$x"]}}
    assert interpolate(section) is section


def test_with_them_the_one_given_stays_as_it_is() -> None:
    section: Section = {"a": "${b}", "b": {"c": [1, "${d}"]}, "d": 2}
    before = copy.deepcopy(section)
    assert interpolate(section) == {"a": {"c": [1, 2]}, "b": {"c": [1, 2]}, "d": 2}
    assert section == before


def test_what_refers_to_itself_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^a: Recursive interpolation detected$"):
        interpolate({"a": "${b}", "b": "${a}"})


def test_references_that_others_refer_to_are_counted_again() -> None:
    assert interpolate({"a": "x", **{f"b{i}": "${a}" for i in range(RESOLVED)}})["b1"] == "x"
    with pytest.raises(UserError, match=r"^more than 2,000 \$\{…\}"):
        interpolate({"a": "x", "b": "${a}${a}", **{f"c{i}": "${b}" for i in range(RESOLVED // 3 + 1)}})


def folders(section: Section) -> dict[str, str]:
    """The folder in which each text was written; those of nested ones under their last key."""
    return {
        key: str(getattr(value, "folder", "none"))
        for each in (section, *(inner for inner in section.values() if isinstance(inner, dict)))
        for key, value in each.items()
        if isinstance(value, str)
    }


def test_a_value_referred_to_was_written_where_it_stands_and_one_put_together_where_that_is_done() -> None:
    section = {
        **written({"root": "data", "corpus": "a.txt", "sets": {"one": "b.txt", "two": "${..root}"}}, Path("/below")),
        **written(
            {"own": "c", "same": "${corpus}", "put": "${root}/a", "whole": "${sets}", "far": "${same}"}, Path("/top")
        ),
        "given": "${ corpus }",
        "made": "${corpus}.gz",
    }
    resolved = interpolate(section)
    assert resolved["put"] == "data/a" and resolved["whole"]["two"] == "data" and resolved["given"] == "a.txt"
    assert folders(resolved) == {
        "root": "/below", "corpus": "/below", "one": "/below", "two": "/below",
        "own": "/top", "same": "/below", "put": "/top", "far": "/below", "given": "/below", "made": "none",
    }  # fmt: skip
    assert folders(resolved["whole"]) == {"one": "/below", "two": "/below"}


def test_what_a_resolver_gives_was_written_where_the_resolver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUS", "a.txt")
    section = written({"a": "${oc.env:CORPUS}", "b": "\\${c}", "c": 1, "d": "${c}"}, Path("/there"))
    resolved = interpolate(section)
    assert resolved == {"a": "a.txt", "b": "${c}", "c": 1, "d": 1}
    assert folders(resolved) == {"a": "/there", "b": "/there"}


def test_so_it_is_through_files_and_what_is_given_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/base.yaml").write_text("corpus: a.txt\ndata: {path: '${corpus}'}")
    (tmp_path / "top.yaml").write_text("extends: deep/base.yaml\nevaluate: {sets: {one: {path: '${corpus}'}}}")
    section = read(tmp_path / "top.yaml")
    assert interpolate(section)["evaluate"]["sets"]["one"]["path"].folder == tmp_path / "deep"
    given = interpolate(merge(section, overrides(["corpus=b.txt"])))
    assert given["data"]["path"] == "b.txt" and not hasattr(given["data"]["path"], "folder")


def test_what_is_put_together_has_values_as_they_are_spelled_and_one_alone_is_the_value() -> None:
    section = parse("a: 1.10\nb: no\nc: ~\nd: '${a} ${b} ${c}'\ne: ${a}\nf: {g: '${.h}', h: 0x10}\ni: ${f}")
    resolved = interpolate(section)
    assert resolved["d"] == "1.10 no ~"
    assert (resolved["e"], resolved.spelled["e"]) == (1.1, "1.10")
    assert (resolved["f"]["g"], resolved["f"].spelled["g"]) == (16, "0x10")
    assert resolved["i"] == resolved["f"] and resolved["i"].spelled == resolved["f"].spelled
    assert interpolate({"a": None, "b": True, "c": "${a} ${b}"})["c"] == "null true"  # not Python's words


def test_of_one_key_alone_others_stay_as_they_are_written() -> None:
    section = {"a": ["${b}"], "b": "x", "c": "${nowhere}"}
    assert interpolate(section, only="a") == {"a": ["x"], "b": "x", "c": "${nowhere}"}
    assert interpolate(section, only="b") is section
    assert refers(section) and not refers({"a": "$b {c}"})


@pytest.mark.parametrize(
    "text", ["${a}", "\\${a}", "\\\\${a}", "${", "a\\b${c}\\", "${${a}}", "$${a}}", "${a} \\ ${a:b}"]
)
def test_an_escaped_text_is_resolved_to_itself(text: str) -> None:
    assert interpolate({"key": escaped(text), "a": 1})["key"] == text


@examples(200)
@given(st.text(st.sampled_from("\\${}a:. '"), max_size=12))
def test_whatever_it_is(text: str) -> None:
    assert interpolate({"key": [escaped(text)], "a": 1})["key"] == [text]
