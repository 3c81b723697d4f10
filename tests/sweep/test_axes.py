"""What `key=a,b,c` and a grid file's axes are split into."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.layers import read
from halos.errors import ConfigError
from halos.sweep.axes import Axis, chosen, from_file, from_text, is_axis, short, text_of, values

SPLIT = {
    "a,b,c": ["a", "b", "c"],
    "0..3": ["0", "1", "2", "3"],
    "-1..1,7": ["-1", "0", "1", "7"],
    "3..3": ["3"],
    "[1, 2],[3]": ["[1, 2]", "[3]"],
    "{name: sgd, lr: 1},nesterov": ["{name: sgd, lr: 1}", "nesterov"],
    "'a,b',c": ["'a,b'", "c"],
    '["x, y]", 1],2': ['["x, y]", 1]', "2"],
    r"a\,b": ["a,b"],
    r"a\,b,c": ["a,b", "c"],
    "it's,that": ["it's", "that"],  # no quote: it begins no text
    "../a..b": ["../a..b"],
    "${a.b},${c}": ["${a.b}", "${c}"],
}


@pytest.mark.parametrize(("text", "parts"), SPLIT.items(), ids=SPLIT)
def test_a_value_is_split_at_its_own_commas(text: str, parts: list[str]) -> None:
    assert values(text) == parts


def test_what_has_one_value_is_no_axis_but_a_count_is() -> None:
    several = ["a,b", "0..4", "3..3", "1,"]
    one = ["a", r"a\,b", "'a,b'", "[1, 2]", "", "1..", "a..b", "1.5..2"]
    assert [text for text in (*several, *one) if is_axis(text)] == several


@pytest.mark.parametrize("text", ["a,,b", "a,", ",a", "a, ", "4..0", "0..100000"])
def test_nothing_between_two_commas_or_in_a_count_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^seed: "):
        from_text(f"seed={text}")


def test_values_are_read_as_those_of_a_run_and_labels_are_the_numbers_or_texts_they_are() -> None:
    axis = from_text("a.b=1,1e-3,no,null,x,007,[1, 2]")
    assert [choice.changes for choice in axis.choices] == [
        {"a": {"b": value}} for value in (1, 0.001, False, None, "x", 7, [1, 2])
    ]
    assert [choice.label for choice in axis.choices] == [1, 0.001, "no", "null", "x", 7, "[1, 2]"]


def test_one_value_twice_is_a_mistake_however_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"^lr: '0.1' is given twice$"):
        from_text("lr=0.1,1e-1")


def test_a_label_is_short_and_still_tells_values_apart() -> None:
    axis = from_text(f"x=[{'1, ' * 60}1],[{'1, ' * 60}2]")
    one, other = (str(choice.label) for choice in axis.choices)
    assert (len(one), len(other)) == (99, 99) and one != other
    assert (short("two\nlines"), short("")) == ("two lines", '""')


def test_labels_are_written_as_people_do() -> None:
    assert [text_of(label) for label in (1, 0.1, 1e15, 1e-3, 0.1 + 0.2, "x")] == [
        "1", "0.1", "1e+15", "0.001", "0.30000000000000004", "x"
    ]  # fmt: skip


def axes(folder: Path, text: str) -> dict[str, Axis]:
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    return {name: from_file(name, value) for name, value in read(folder / "grid.yaml").items()}


def test_a_grid_file_has_lists_counts_and_labelled_overrides(tmp_path: Path) -> None:
    found = axes(tmp_path, "seed: 1..2\nlr: [0.1, {a: 1}]\nmethod:\n  A: {x.y: 1, x: {z: 2}}\n  007: {}\n  B:\n")
    assert [[choice.label for choice in axis.choices] for axis in found.values()] == [
        [1, 2], [0.1, "{a: 1}"], ["A", "007", "B"]
    ]  # fmt: skip
    assert [choice.changes for choice in found["method"].choices] == [{"x": {"y": 1, "z": 2}}, {}, {}]
    assert [choice.changes for choice in found["lr"].choices] == [{"lr": 0.1}, {"lr": {"a": 1}}]


@pytest.mark.parametrize(
    "text", ["seed: 3", "seed: a", "seed: []", "seed: {}", "seed: 4..0", "m: {A: [1]}", "m: {A: 3}"]
)
def test_anything_else_in_it_is_a_mistake(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^(axes\.)?(seed|m)"):
        axes(tmp_path, text)


def test_labels_of_a_grid_file_may_be_chosen(tmp_path: Path) -> None:
    method = axes(tmp_path, "method: {A: {x: 1}, B: {x: 2}, C: {x: 3}}")["method"]
    assert [choice.changes for choice in chosen(method, "C,A").choices] == [{"x": 3}, {"x": 1}]
    with pytest.raises(ConfigError, match=r"^method: 'D' is not one of the grid file's A, B, C$"):
        chosen(method, "A,D")
