"""Which figures there are, and which are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.figures import baseline_of, figures, save
from halos.errors import UserError
from tests.compare.made_groups import FALLING, group, two

pytest.importorskip("matplotlib")

ALL = [
    "loss",
    "differences",
    "loss-above-baseline",
    "drift",
    "drift-against-loss",
    "pareto",
    "timeline-1",
    "timeline-2",
]
FIRST = {"first": "first", "second & <last>": "first"}


def test_of_two_groups_and_a_baseline_there_are_all(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    found = figures([first, second], FIRST, 3.0)
    assert [figure.name for figure in found.drawn] == ALL
    assert found.left_out == ()
    assert all(figure.caption.endswith(".") and figure.title for figure in found.drawn)


def test_one_group_is_compared_with_nothing(tmp_path: Path) -> None:
    only = group(tmp_path, "only", FALLING)
    found = figures([only], {"only": "only"}, None)
    assert [figure.name for figure in found.drawn] == ["loss", "drift", "drift-against-loss", "pareto", "timeline-1"]
    assert found.left_out == ()


def test_timing_runs_have_a_timeline_and_a_sentence_about_the_rest(tmp_path: Path) -> None:
    timed = [group(tmp_path, name, [], executor="timing", commits=[]) for name in ("a", "b")]
    found = figures(timed, {"a": "a", "b": "a"}, None)
    assert [figure.name for figure in found.drawn] == ["timeline-1", "timeline-2"]
    assert [line.partition(":")[0] for line in found.left_out] == [
        "Loss",
        "Differences",
        "Loss above the baseline's",
        "Drift",
        "Drift against loss",
        "Loss against cost",
    ]


def test_the_baseline_is_called_by_its_label_if_all_have_the_same(tmp_path: Path) -> None:
    several = [group(tmp_path, name, FALLING) for name in "abcd"]
    assert baseline_of(several, dict.fromkeys("abcd", "a")) == "a"
    assert baseline_of(several, {"a": "a", "b": "a", "c": "c", "d": "c"}) == "each group's baseline"
    assert baseline_of(several, {}) == baseline_of(several[:1], {"a": "a"}) == baseline_of([], {}) == ""


def test_nothing_at_all_is_no_figure() -> None:
    found = figures([], {}, None)
    assert found.drawn == () and found.left_out[-1] == "Timelines: no run has recorded an update."


def test_each_figure_is_saved_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    first, second = two(tmp_path / "runs")
    paths = save(tmp_path / "figures" / "here", [first, second], FIRST, None)
    assert [path.name for path in paths] == [f"{name}.png" for name in ALL]
    for path in paths:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5_000


def test_where_figures_cannot_be_saved_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be written: "):
        save(tmp_path / "file", [], {}, None)
