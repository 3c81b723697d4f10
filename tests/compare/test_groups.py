"""Which runs are one group, and what groups are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from halos.compare.groups import grouped
from halos.errors import UserError
from halos.reading.run import RunRecords, read
from tests.compare.made_runs import write_run


class Runs:
    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, list[RunRecords]()

    def add(self, **options: Any) -> Runs:
        self.all.append(read(write_run(self.folder / f"run{len(self.all)}", [(0.0, 0, 1.0)], **options)))
        return self

    def groups(self, by: list[str] | None = None) -> dict[str, list[int]]:
        found, remarks = grouped(self.all, by)
        assert remarks == []
        return {group.label: list(group.runs) for group in found}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_runs_that_differ_in_their_seed_and_in_names_are_one_group(runs: Runs) -> None:
    for seed in (2, 1):
        for policy in ("diloco", "async_local_sgd"):
            runs.add(seed=seed, policy=policy)
    assert runs.groups() == {"diloco": [1, 2], "async_local_sgd": [1, 2]}


def test_what_changes_no_result_makes_no_group(runs: Runs) -> None:
    runs.add(seed=1)
    other = {"observers": {"records": "none"}, "checkpoint": {"keep": 3}, "plugins": ["a.py"], "name": "x"}
    runs.add(seed=2, executor="inline", config={**other, "executor": {"name": "inline", "device": "cpu", "threads": 4}})
    assert runs.groups() == {"run0": [1, 2]}


def test_a_label_has_no_more_keys_than_it_takes_and_numbers_have_their_names(runs: Runs) -> None:
    runs.add(policy="diloco", lr=0.7).add(policy="async_local_sgd", lr=1.4).add(policy="async_local_sgd", lr=0.7)
    assert list(runs.groups()) == ["diloco, lr 0.7", "async_local_sgd, lr 1.4", "async_local_sgd, lr 0.7"]
    two = Runs(runs.folder / "two").add(policy="diloco", lr=0.7).add(policy="async_local_sgd", lr=1.4)
    assert list(two.groups()) == ["diloco", "async_local_sgd"]


def test_labels_name_groups_where_all_runs_have_some(runs: Runs) -> None:
    for seed in (1, 2):
        runs.add(seed=seed, lr=0.7, labels={"method": "DiLoCo", "speeds": "none", "H": 16, "seed": seed})
        runs.add(seed=seed, lr=1.4, labels={"method": "async", "speeds": "none", "H": 32, "seed": seed})
    assert runs.groups() == {"DiLoCo, H 16": [1, 2], "async, H 32": [1, 2]}
    found, _ = grouped(runs.all)
    assert found[0].values == {"method": "DiLoCo", "speeds": "none", "H": "16"}


def test_a_value_that_says_nothing_has_its_key(runs: Runs) -> None:
    for speeds in ("none", "moderate"):
        runs.add(labels={"speeds": speeds})
    assert list(runs.groups()) == ["speeds none", "moderate"]


def test_by_chooses_the_keys_be_they_labels_or_of_the_configuration(runs: Runs) -> None:
    runs.add(seed=1, policy="diloco", labels={"x": "a"}).add(seed=2, policy="diloco", labels={"x": "b"})
    assert runs.groups(["policy.name"]) == {"diloco": [1, 2]}
    assert runs.groups(["x"]) == {"a": [1], "b": [2]}


def test_by_that_does_not_tell_two_runs_of_a_seed_apart_is_a_mistake_that_names_what_would(runs: Runs) -> None:
    runs.add(lr=0.7).add(lr=1.4)
    with pytest.raises(
        UserError, match=r"--by: does not tell .*run1 and .*run0 apart, which differ in policy.outer.lr"
    ):
        grouped(runs.all, ["policy.name"])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("polcy.name", "no run has a label or key 'polcy.name' (did you mean 'policy.name'?); labels are: method"),
        ("lr", "no run has a label or key 'lr' (did you mean 'policy.outer.lr'?); labels are: method"),
        ("seed", "'seed' is a seed; runs that differ in that only are taken together"),
    ],
)
def test_an_unknown_key_is_a_mistake(runs: Runs, key: str, said: str) -> None:
    runs.add(labels={"method": "x"})
    with pytest.raises(UserError) as caught:
        grouped(runs.all, [key])
    assert str(caught.value) == f"--by: {said}"


def test_labels_that_do_not_tell_two_runs_apart_are_helped_by_what_differs(runs: Runs) -> None:
    runs.add(lr=0.7, labels={"m": "x"}).add(lr=1.4, labels={"m": "x"}).add(seed=2, lr=1.4, labels={"m": "x"})
    assert runs.groups() == {"lr 0.7": [1], "lr 1.4": [1, 2]}


def test_the_same_run_twice_is_left_out_and_said(runs: Runs) -> None:
    found, remarks = grouped(runs.add().add().all)
    assert [list(group.runs) for group in found] == [[1]]
    (remark,) = remarks
    assert remark.endswith("run0; left out") and "run1: the same run as " in remark


def test_a_components_own_seed_numbers_runs_whose_seed_is_the_same(runs: Runs) -> None:
    for seed in (3, 4):
        runs.add(seed=1, config={"model": {"seed": seed}})
    assert runs.groups() == {"run0": [3, 4]}
    grid = Runs(runs.folder / "grid")
    for seed in (1, 2):
        for own in (3, 4):
            grid.add(seed=seed, config={"model": {"seed": own}})
    assert grid.groups() == {"seed 3": [1, 2], "seed 4": [1, 2]}


def test_the_seed_of_a_component_that_one_run_alone_has_numbers_no_run(runs: Runs) -> None:
    """Both are runs of seed 1, and are paired."""
    runs.add(seed=1, policy="diloco").add(seed=1, policy="dilocox", config={"codec": {"seed": 0}})
    assert runs.groups() == {"diloco": [1], "dilocox": [1]}


def test_long_values_are_numbered_and_paths_are_their_last_part(runs: Runs) -> None:
    for region in ("a", "b"):
        regions = [{"name": region * 30, "workers": [1.0]}]
        runs.add(config={"cluster": {"regions": regions}})
    assert list(runs.groups()) == ["regions #1", "regions #2"]
    two = Runs(runs.folder / "two").add(data={"path": "/corpora/one"}).add(data={"path": "/corpora/two"})
    assert list(two.groups()) == ["one", "two"]
