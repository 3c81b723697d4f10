"""What figures of drift show, read off their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.figures.drawing import NAMED
from halos.compare.figures.drift import against_loss, found, over
from halos.compare.figures.style import styles
from tests.compare.drawn import LOOKS, axes, line
from tests.compare.made_groups import FALLING, group, losses, two

pytest.importorskip("matplotlib")


def test_drift_over_time_is_in_units_of_the_update(tmp_path: Path) -> None:
    """‖Δ‖ is 2, drifts are 1 and 4."""
    figure = over(found(two(tmp_path)), LOOKS)
    assert figure is not None and len(figure.panels) == 2
    for panel in (0, 1):
        first, second = (line(axes(figure, panel), number) for number in (0, 1))
        assert (first[1], second[1]) == ([0.5, 0.5], [2.0, 2.0])
        assert first[0] == pytest.approx([4, 8], rel=0.01)  # the middles of the first and last of forty intervals
    assert axes(figure, 0).get_yscale() == "linear"


def test_high_drifts_leave_room_for_small_ones(tmp_path: Path) -> None:
    figure = over(found([group(tmp_path, "far", FALLING, drift=100.0)]), LOOKS)
    assert figure is not None and axes(figure, 1).get_yscale() == "symlog"


def test_drift_against_loss_is_a_point_a_run(tmp_path: Path) -> None:
    """The second's drift is 4 / 2, and its loss 0.5 below the first's for both seeds."""
    first, second = two(tmp_path)
    figure = against_loss(found([first, second]), losses(first, second), LOOKS, losses(first, first), "first")
    assert figure is not None and figure.marks and "minus that of first" in figure.caption
    hop = axes(figure, 0)
    level, *points = (line(hop, number) for number in range(5))
    assert level[1] == [0, 0]
    assert points == [([0.5, 0.5], [0, 0]), ([0.5], [0]), ([2, 2], [-0.5, -0.5]), ([2], [-0.5])]
    assert sorted(text.get_text() for text in hop.texts) == ["first", "second"]


def test_without_a_baseline_the_loss_itself_is_drawn(tmp_path: Path) -> None:
    first, _ = two(tmp_path)
    figure = against_loss(found([first]), losses(first), LOOKS, None, "")
    assert figure is not None and line(axes(figure, 0), 0) == ([0.5, 0.5], [3.0, 2.75])


def test_of_many_groups_no_names_are_written_over_the_points(tmp_path: Path) -> None:
    many = [group(tmp_path, str(number), FALLING) for number in range(NAMED + 1)]
    figure = against_loss(found(many), losses(*many), styles(many), None, "")
    assert figure is not None and len(axes(figure, 0).texts) == 0 and len(figure.styles) == NAMED + 1


def test_without_drifts_there_are_no_figures(tmp_path: Path) -> None:
    none = group(tmp_path, "none", FALLING, commits=[])
    assert over(found([none]), LOOKS) is None
    assert against_loss(found([none]), losses(none), LOOKS, None, "") is None
    timed = group(tmp_path, "timing", [], executor="timing")
    assert against_loss(found([timed]), losses(timed), LOOKS, None, "") is None
