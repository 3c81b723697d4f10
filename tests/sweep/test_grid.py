"""Which cells a command line or a grid file asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.config import load_config, resolved
from halos.errors import UserError
from halos.sweep.grid import asked
from tests.sweep.small import tiny

GRID = """
config: tiny.yaml
set: {budget.local_steps: 8, train: {clip: 2.0}}
axes:
  method:
    DiLoCo: {policy: diloco}
    HALoS: {policy.name: halos, policy.local_updates: 2}
  seed: 0..1
  train.optimizer.lr: [0.1, 0.2]
without:
  - {method: HALoS, seed: 1}
  - {seed: 0, train.optimizer.lr: 2e-1}
"""


def labels(*arguments: str) -> list[tuple[object, ...]]:
    return [tuple(cell.labels.values()) for cell in asked([arguments[0]], arguments[1:]).cells()]


@pytest.fixture
def grid(tmp_path: Path) -> str:
    tiny(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID, encoding="utf-8")
    return str(tmp_path / "grid.yaml")


def test_the_last_axis_changes_fastest(tmp_path: Path) -> None:
    assert labels(tiny(tmp_path), "seed=0..1", "train.batch_size=2,4", "budget.local_steps=8") == [
        (0, 2), (0, 4), (1, 2), (1, 4)
    ]  # fmt: skip


def test_a_cell_has_the_configuration_that_its_own_command_line_has(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    arguments = ["policy.outer.lr=0.5", "policy=diloco,halos", "policy.outer=nesterov", "train.clip=1.5,3"]
    found = [resolved(cell.section)[0] for cell in asked([config], arguments).cells()]
    for each, (policy, clip) in zip(found, [(p, c) for p in ("diloco", "halos") for c in ("1.5", "3")], strict=True):
        own = [arguments[0], f"policy={policy}", arguments[2], f"train.clip={clip}"]
        expected, _ = load_config(config, own)
        assert each.labels == {"policy": policy, "train.clip": float(clip)}
        each.labels = {}
        assert each == expected


def test_a_grid_file_says_what_a_command_line_cannot(grid: str) -> None:
    assert labels(grid) == [
        ("DiLoCo", 0, 0.1), ("DiLoCo", 1, 0.1), ("DiLoCo", 1, 0.2), ("HALoS", 0, 0.1)
    ]  # fmt: skip
    last, _ = resolved(list(asked([grid], ()).cells())[-1].section)
    assert (type(last.policy).__name__, last.policy.local_updates) == ("Halos", 2)
    assert (last.budget.local_steps, last.train.clip, last.train.optimizer.lr) == (8, 2.0, 0.1)


def test_the_command_line_replaces_an_axis_adds_one_or_chooses_labels(grid: str) -> None:
    assert labels(grid, "train.optimizer.lr=0.3", "method=HALoS", "train.clip=1,3", "seed=0,7") == [
        ("HALoS", 1, 0), ("HALoS", 1, 7), ("HALoS", 3, 0), ("HALoS", 3, 7)
    ]  # fmt: skip
    for cell in asked([grid], ["budget.local_steps=24"]).cells():
        assert resolved(cell.section)[0].budget.local_steps == 24


def test_labels_that_look_like_references_stay_texts(tmp_path: Path) -> None:
    (cell, _) = asked([tiny(tmp_path)], ["labels.note='${seed}',b"]).cells()
    assert cell.labels == {"labels.note": "${seed}"}
    assert resolved(cell.section)[0].labels == {"note": 1234, "labels.note": "${seed}"}


def test_a_list_has_a_cell_in_each_line(tmp_path: Path) -> None:
    lines = "# two\none: policy=diloco\n\nthe other: policy=halos 'policy.outer={name: sgd, lr: 2}'  # plain\n"
    (tmp_path / "cells.txt").write_text(lines)
    found = list(asked([tiny(tmp_path)], ["seed=1,2"], tmp_path / "cells.txt").cells())
    assert [tuple(cell.labels.values()) for cell in found] == [
        ("one", 1), ("one", 2), ("the other", 1), ("the other", 2)
    ]  # fmt: skip
    assert resolved(found[3].section)[0].policy.outer.lr == 2.0


@pytest.mark.parametrize("line", ["policy=diloco", ": policy=diloco", "a: policy", "a: 'policy=diloco", "a: out=x"])
def test_a_mistake_in_a_list_is_named_by_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "cells.txt").write_text(f"fine: seed=1\n{line}\n")
    with pytest.raises(UserError, match=r"^--list: .*cells.txt, line 2: "):
        asked([tiny(tmp_path)], (), tmp_path / "cells.txt")


MISTAKES = {
    "axis: {}\nconfig: tiny.yaml": "axis: no such key of a grid file (did you mean 'axes'?)",
    "config: tiny.yaml\naxes: [1]": "axes: [1] is not a section of axes",
    "config: no.yaml": "no.yaml does not exist",
    "axes: {seed: [1]}": "config: null is not the path of a configuration",
    "config: tiny.yaml\naxes: {name: [a, b]}": "axes.name: belongs to no cell",
    "config: tiny.yaml\nwithout: {seed: 1}": "without: {'seed': 1} is not a list of sections",
    "config: tiny.yaml\naxes: {seed: [1, 2]}\nwithout: [{sed: 1}]": "without[0].sed: no such axis",
    "config: tiny.yaml\naxes: {seed: [1, 2]}\nwithout: [{seed: 3}]": "without[0].seed: '3' is not one of 1, 2",
    "config: tiny.yaml\naxes: {'': [1, 2]}": "'' is no key",
    "config: tiny.yaml\nset: {a..b: 1}": "'a..b' is no key",
    "config: null": "config: null is not the path of a configuration",
    "config: tiny.yaml\nset: {out: x}": "set.out: belongs to no cell",
    "config: tiny.yaml\naxes: {m: {a: {out: x}}}": "axes.m.a.out: belongs to no cell",
    "config: tiny.yaml\naxes: {seed: [1, 2], m: [a, b]}\nset: 3": "set: 3 is not a section of overrides",
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.items(), ids=MISTAKES.values())
def test_a_mistake_in_a_grid_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    tiny(tmp_path)
    (tmp_path / "grid.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        asked([str(tmp_path / "grid.yaml")], ())
    assert said in str(caught.value)


def test_several_configurations_are_an_axis_called_after_their_files(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(Path(tiny(tmp_path)).read_text())
    for name, lr in (("a", 0.5), ("b", 0.25)):
        (tmp_path / f"{name}.yaml").write_text(f"extends: base.yaml\npolicy: {{name: diloco, outer: {{lr: {lr}}}}}\n")
    several = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    found = list(asked(several, ["seed=1,2"]).cells())
    assert [[*cell.labels.values()] for cell in found] == [["a", 1], ["a", 2], ["b", 1], ["b", 2]]
    assert [cell.section["policy"]["outer"]["lr"] for cell in found] == [0.5, 0.5, 0.25, 0.25]
    grid = tmp_path / "grid.yaml"
    grid.write_text("config: {DiLoCo: a.yaml, lower: b.yaml}\nset: {budget.local_steps: 3}\naxes: {seed: [7]}\n")
    found = list(asked([str(grid)], ["policy.outer.lr=2.0"]).cells())
    assert [[*cell.labels.values()] for cell in found] == [["DiLoCo", 7], ["lower", 7]]
    assert [cell.section["budget"]["local_steps"] for cell in found] == [3, 3]
    assert [cell.section["policy"]["outer"]["lr"] for cell in found] == [2.0, 2.0]
    with pytest.raises(UserError, match=r"grid\.yaml is a grid of its own"):
        asked([str(grid), several[0]], ())
    grid.write_text(
        "set: {budget.local_steps: 3, policy.outer.lr: 4.0}\n"
        "axes: {tried: {a: {config: a.yaml}, b 2: {config: b.yaml, policy.outer.lr: 2.0}}}\n"
    )
    found = list(asked([str(grid)], ["seed=1,2"]).cells())
    assert [[*cell.labels.values()] for cell in found] == [["a", 1], ["a", 2], ["b 2", 1], ["b 2", 2]]
    assert [cell.section["policy"]["outer"]["lr"] for cell in found] == [4.0, 4.0, 2.0, 2.0]
    assert [cell.section["budget"]["local_steps"] for cell in found] == [3] * 4
