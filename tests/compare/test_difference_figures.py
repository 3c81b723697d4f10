"""What the figure of differences shows, read off its marks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from halos.compare.difference_figures import differences
from tests.compare.drawn import LOOKS, axes, line
from tests.compare.made_groups import FALLING, group, losses, lowered, two

pytest.importorskip("matplotlib")


def test_a_group_is_a_row_with_pairs_mean_and_interval(tmp_path: Path) -> None:
    """0.5 and 1 below: mean 0.75, deviation √0.125, and Student's t of one degree of freedom at 97.5 % is 12.7062."""
    first = group(tmp_path, "first", FALLING, FALLING)
    second = group(tmp_path, "second", lowered(0.5), lowered(1.0))
    found = losses(first, second)
    figure = differences(found, LOOKS, [found[0], found[0]], "first")
    assert figure is not None and figure.title == "Loss minus that of first" and figure.styles == ()
    drawn = axes(figure, 0)
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["second"]  # not the baseline itself
    assert drawn.get_lines()[0].get_xdata()[0] == 0
    half = 12.7062 * math.sqrt(0.125) / math.sqrt(2)
    assert line(drawn, 1)[0] == pytest.approx([-0.75 - half, -0.75 + half], rel=1e-5)
    assert line(drawn, 2) == ([-0.5, -1.0], [0, 0])
    assert line(drawn, 3) == ([-0.75], [0])


def test_each_group_has_a_baseline_of_its_own(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    found = losses(first, second)
    figure = differences(found, LOOKS, [found[1], found[0]], "each group's baseline")
    assert figure is not None
    drawn = axes(figure, 0)
    assert [line(drawn, number)[0] for number in (2, 5)] == [[0.5, 0.5], [-0.5, -0.5]]
    low, high = drawn.get_ylim()
    assert low > high  # the first is above


def test_of_one_pair_there_is_no_interval(tmp_path: Path) -> None:
    one, other = group(tmp_path, "a", FALLING), group(tmp_path, "b", lowered(1.0))
    figure = differences(losses(one, other), LOOKS, [{}, losses(one)[0]], "a")
    assert figure is not None and [line(axes(figure, 0), number)[0] for number in (1, 2)] == [[-1.0], [-1.0]]


def test_without_pairs_there_is_no_figure(tmp_path: Path) -> None:
    (found,) = losses(group(tmp_path, "a", FALLING))
    assert differences([found], LOOKS, [found], "a") is None
    assert differences([found], LOOKS, [{}], "a") is None
