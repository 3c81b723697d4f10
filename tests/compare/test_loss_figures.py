"""What figures of loss show, read off their lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from halos.compare.bands import Band
from halos.compare.loss_figures import front, loss, loss_above, pareto, top
from tests.compare.drawn import LOOKS, axes, line
from tests.compare.made_groups import FALLING, group, losses, two

pytest.importorskip("matplotlib")


def test_a_line_is_the_mean_over_seeds_and_a_band_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    figure = loss(losses(*two(tmp_path)), LOOKS, target=3.5)
    assert figure is not None and [style.label for style in figure.styles] == ["first", "second"]
    tokens = axes(figure, 0)
    assert line(tokens, 0) == ([0, 40, 80], [4.875, 3.875, 2.875])  # of 5, 4, 3 and those less 0.25; ten tokens a step
    assert line(tokens, 1) == ([0, 40, 80], [4.375, 3.375, 2.375])
    assert tokens.get_lines()[2].get_ydata()[0] == 3.5
    corners = tokens.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (2.75, 5.0)
    assert (tokens.get_xlabel(), tokens.get_ylabel()) == ("trained on (tokens)", "validation loss")


def test_against_time_and_bytes_lines_are_steps_on_a_logarithmic_axis(tmp_path: Path) -> None:
    figure = loss(losses(*two(tmp_path)), LOOKS, target=None)
    assert figure is not None
    time, sent = axes(figure, 1), axes(figure, 2)
    assert line(time, 0) == ([4, 8], [3.875, 2.875])
    assert (time.get_xscale(), time.get_lines()[0].get_drawstyle()) == ("log", "steps-post")
    assert line(sent, 0) == ([1.0, 2.0], [3.875, 2.875])  # kB
    assert "dotted" not in figure.caption


def test_above_the_baseline_is_minus_its_last_loss_of_the_same_seed(tmp_path: Path) -> None:
    """The first ends at 3 and 2.75, the second begins at 4.5 and 4.25 and ends 0.5 below."""
    first, second = two(tmp_path)
    figure = loss_above(losses(first, second), LOOKS, losses(first, first), "first")
    assert figure is not None and figure.title == "Loss above the final one of first"
    tokens = axes(figure, 0)
    assert line(tokens, 0) == ([0, 40, 80], [2.0, 1.0, 0.0])
    assert line(tokens, 1) == ([0, 40, 80], [1.5, 0.5, -0.5])
    low, high = tokens.get_ylim()
    assert low < -0.5 and 1.0 <= high < 1.5  # what is above the highest in the middle, 1, is cut off


def test_loss_against_cost_shows_runs_means_and_the_front(tmp_path: Path) -> None:
    figure = pareto(losses(*two(tmp_path)), LOOKS)
    assert figure is not None and figure.marks
    found = axes(figure, 0)
    assert line(found, 0) == ([8], [2.375])  # both take 8 s: the lower one alone is on the front
    assert line(found, 1) == ([8, 8], [3.0, 2.75])
    assert line(found, 2) == ([8], [2.875])
    assert sorted(text.get_text() for text in found.texts) == ["first", "second"]


def test_a_run_that_blew_up_does_not_spoil_the_scale(tmp_path: Path) -> None:
    wild = group(tmp_path, "wild", [(0.0, 0, 5.0), (4.0, 4, 1e30)])
    calm = group(tmp_path, "calm", FALLING)
    figure, costs = loss(losses(wild, calm), LOOKS, None), pareto(losses(wild, calm), LOOKS)
    assert figure is not None and costs is not None
    assert axes(figure, 0).get_ylim()[1] < 6 and axes(costs, 0).get_ylim()[1] < 6


def test_what_is_not_known_is_no_figure_or_no_panel(tmp_path: Path) -> None:
    nothing = group(tmp_path, "timing", [], executor="timing")
    assert loss(losses(nothing), LOOKS, 1.0) is None and pareto(losses(nothing), LOOKS) is None
    assert loss([], [], None) is None
    assert loss_above(losses(group(tmp_path, "a", FALLING)), LOOKS, losses(nothing), "timing") is None
    few = group(tmp_path, "few", FALLING, config={"observers": {"records": "commits"}})
    figure = loss(losses(few, nothing), LOOKS, None)
    assert figure is not None and len(figure.panels) == 2  # no bytes
    assert [style.label for style in figure.styles] == ["first"]


def test_the_front_is_what_nobody_beats_in_both() -> None:
    """(2, 5) costs more than (1, 5) for the same; (4, 1) is dearer and better; (5, 3) is worse in both."""
    assert front([(4.0, 1.0), (2.0, 5.0), None, (5.0, 3.0), (1.0, 5.0)]) == [(1.0, 5.0), (4.0, 1.0)]


def test_the_top_is_the_highest_mean_at_a_part_of_the_way() -> None:
    """Half way from 0 to 4 the first is at 3, half way from 2 to 4 the second at 7."""
    falling = Band(np.array([0.0, 4.0]), np.array([5.0, 1.0]), np.zeros(2), np.zeros(2))
    other = Band(np.array([2.0, 4.0]), np.array([8.0, 6.0]), np.zeros(2), np.zeros(2))
    assert (top([falling], 0.5), top([falling, None, other], 0.5), top([falling, other], 0.0)) == (3.0, 7.0, 8.0)
