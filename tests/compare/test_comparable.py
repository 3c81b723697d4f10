"""Which runs' losses cannot be compared, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from halos.compare.comparable import diverged, obstacles, progress
from halos.compare.groups import Group
from halos.reading.run import read
from tests.compare.made_runs import write_run

POINTS = [(0.0, 0, 5.0), (8.0, 40, 2.5)]


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def answer(**groups: dict[int, dict[str, Any]]) -> dict[str, str]:
        """By run, what is wrong; the first group is the baseline."""
        made = []
        for label, runs in groups.items():
            folders = {
                seed: write_run(tmp_path / f"{label}{seed}", options.pop("points", POINTS), seed=seed, **options)
                for seed, options in runs.items()
            }
            made.append(Group(label, {}, {seed: read(folder) for seed, folder in folders.items()}))
        return {folder.name: said for folder, said in obstacles(made, made[0]).items()}

    return answer


def test_runs_on_the_same_samples_can_be_compared_whatever_their_seeds(problems: Any) -> None:
    assert problems(a={1: {}, 2: {}}, b={1: {}, 2: {}, 3: {}}) == {}


def test_another_corpus_is_named(problems: Any) -> None:
    other = {"data": {"path": "/corpora/two"}, "corpus": "ffff00001111"}
    said = "another corpus (hash ffff0000, not 0a1b2c3d) than a1; its losses are not compared"
    assert problems(a={1: {}, 2: {}}, b={1: dict(other), 2: dict(other)}) == {"b1": said, "b2": said}


def test_files_that_were_edited_between_two_runs_are_another_corpus(problems: Any) -> None:
    assert problems(a={1: {}}, b={1: {"corpus": "ffff00001111"}})["b1"].startswith("another corpus (hash ffff0000")


def test_the_odd_one_out_is_named_even_if_it_is_the_baseline(problems: Any) -> None:
    assert list(problems(a={1: {"corpus": "ffff00001111"}}, b={1: {}}, c={1: {}})) == ["a1"]


def test_samples_that_are_drawn_by_the_seed_are_another_corpus_for_every_seed(problems: Any) -> None:
    assert problems(a={1: {}, 2: {"corpus": "ffff00001111"}}, b={1: {}, 2: {"corpus": "ffff00001111"}}) == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sequence_length": 64}, "another evaluation length (data.sequence_length 64, not 32)"),
        ({"validation_samples": 8}, "another validation set (data.validation_samples 8, not 64)"),
        ({"split_seed": 9}, "another validation set (split seed 9, not 1)"),
        ({"shuffle": False}, "another validation set (data.shuffle false, not true)"),
    ],
)
def test_another_validation_set_is_named(problems: Any, data: dict[str, Any], said: str) -> None:
    assert problems(a={1: {}}, b={1: {"data": data}}) == {"b1": f"{said} than a1; its losses are not compared"}


def test_a_run_still_going_has_no_hash_yet_and_is_judged_by_its_configuration(problems: Any) -> None:
    going = {"finished": None}
    assert problems(a={1: {}}, b={1: dict(going)}, c={1: {**going, "data": {"path": "/corpora/two"}}}) == {
        "c1": "another corpus, as configured (data), than a1; its losses are not compared"
    }


def test_a_run_still_going_does_not_make_two_corpora_one(problems: Any) -> None:
    going, other = {"finished": None}, {"corpus": "ffff00001111"}
    said = "another corpus (hash ffff0000, not 0a1b2c3d) than c1; its losses are not compared"
    assert problems(a={1: dict(going)}, b={1: other}, c={1: {}}, d={1: {}}) == {"b1": said}


def test_rows_without_a_number_are_no_losses(problems: Any) -> None:
    blank = [(0.0, 0, None), (8.0, 40, None)]
    assert problems(a={1: {}}, b={1: {"points": blank}}, c={1: {"points": [(0.0, 0, 5.0), (8.0, 40, None)]}}) == {
        "b1": "no validation losses",
        "c1": "not evaluated since it began to train; its losses are not compared",
    }


def test_runs_without_losses_and_those_that_diverged_are_named(problems: Any) -> None:
    wild = {"finished": "diverged: training loss became nan: update 3, step 2"}
    begun = {"points": [(0.0, 0, 5.0)], "finished": None}
    timed = {"points": [], "executor": "timing"}
    assert problems(a={1: {}}, b={1: wild}, c={1: timed}, d={1: {"points": []}}, e={1: begun}) == {
        "b1": "diverged: training loss became nan: update 3, step 2; its losses are not compared",
        "c1": "a timing run, without losses",
        "d1": "no validation losses",
        "e1": "not evaluated since it began to train; its losses are not compared",
    }


@pytest.mark.parametrize(
    ("finished", "wild", "said"),
    [
        (True, False, None),
        (None, False, "still going, or killed; compared as far as it is (400 tokens)"),
        ("interrupted", False, "interrupted; compared as far as it came (400 tokens)"),
        ("failed: disk is full", False, "failed: disk is full; compared as far as it came (400 tokens)"),
        ("failed: no\n  file", False, "failed: no file; compared as far as it came (400 tokens)"),
        ("failed: what became of it", False, "failed: what became of it; compared as far as it came (400 tokens)"),
        ("diverged: fp16 gradients are not finite at any loss scale, …", True, None),
        ("diverged: evaluation loss of the global model became nan", True, None),
    ],
)
def test_how_a_run_ended(tmp_path: Path, finished: Any, wild: bool, said: str | None) -> None:
    run = read(write_run(tmp_path / "run", POINTS, finished=finished))
    assert (diverged(run), progress(run)) == (wild, said)
