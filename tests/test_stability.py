"""The table of docs/stability.md: some of its cells by short runs, against closed forms; and what is on the page."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmarks.stability import BRACKET, DELAYS, RULES, derived, growth, measured

PAGE = Path(__file__).parents[1] / "docs/stability.md"

# The largest stable lr · a, in closed form. SGD: z^(k+1) − z^k + x has a root on the unit circle first at
# x = 2 sin(π / (4k + 2)). Without delay momentum leaves at z = −1: Nesterov 2 (1 + μ) / (1 + 2μ), heavy ball 2 (1 + μ),
# MLA 2 (1 + γ) / (1 + 2γ − γ²). Heavy ball a round late: z³ − (1 + μ) z² + (μ + x) z has the roots of
# z² − (1 + μ) z + μ + x, whose product is 1 at x = 1 − μ.
CLOSED = {
    ("SGD", 0): 2.0,
    ("SGD", 1): 2 * math.sin(math.pi / 6),
    ("SGD", 2): 2 * math.sin(math.pi / 10),
    ("SGD", 4): 2 * math.sin(math.pi / 18),
    ("SGD", 8): 2 * math.sin(math.pi / 34),
    ("Nesterov .9", 0): 3.8 / 2.8,
    ("Nesterov .8", 0): 3.6 / 2.6,
    ("heavy ball .9", 0): 3.8,
    ("heavy ball .9", 1): 0.1,
    ("MLA .9", 0): 3.8 / (2.8 - 0.81),
}
# By the largest root of the round's map, worked out apart from this repository, to three digits.
KNOWN = {
    "SGD": (2.000, 1.000, 0.618, 0.347, 0.185),
    "Nesterov .9": (1.357, 0.253, 0.081, 0.033, 0.015),
    "Nesterov .8": (1.385, 0.345, 0.143, 0.065, 0.032),
    "heavy ball .9": (3.800, 0.100, 0.051, 0.026, 0.014),
    "MLA .9": (1.910, 0.902, 0.522, 0.254, 0.108),
    "MLA .9, displaced start": (1.751, 0.837, 0.492, 0.247, 0.109),
    "Nesterov .9^(1/(k+1))": (1.357, 0.190, 0.032, 0.0069, 0.0017),
}


@pytest.mark.parametrize(("name", "k"), CLOSED, ids=str)
def test_what_a_rounds_map_says_is_the_closed_form(name: str, k: int) -> None:
    assert derived(RULES[name], k) == pytest.approx(CLOSED[name, k], rel=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_what_a_rounds_map_says_is_what_is_known(name: str) -> None:
    for k, known in zip(DELAYS, KNOWN[name], strict=True):
        digits = 4 if known < 0.01 else 3
        assert derived(RULES[name], k) == pytest.approx(known, abs=0.5001 * 10**-digits)


def limit(name: str, k: int) -> float:
    return CLOSED.get((name, k)) or KNOWN[name][DELAYS.index(k)]


@pytest.mark.parametrize(
    ("name", "k"),
    [("SGD", 0), ("SGD", 2), ("Nesterov .9", 0), ("Nesterov .9", 1), ("heavy ball .9", 1), ("MLA .9", 0)],
    ids=str,
)
def test_a_run_comes_to_rest_just_below_the_limit_and_leaves_just_above(name: str, k: int) -> None:
    below, above = growth(RULES[name], k, [0.99 * limit(name, k), 1.01 * limit(name, k)], window=100)
    assert below < 1.0 < above


@pytest.mark.parametrize("k", [1, 4])
def test_a_displaced_start_runs_as_its_map_says(k: int) -> None:
    name = "MLA .9, displaced start"
    below, above = growth(RULES[name], k, [0.99 * limit(name, k), 1.01 * limit(name, k)], window=100)
    assert below < 1.0 < above


def test_four_rounds_of_delay_cost_nesterov_twenty_times_its_rate_and_sgd_at_most_eight() -> None:
    """The shape that arXiv 2605.09126's abstract has: under delay Nesterov is the least stable."""
    assert growth(RULES["Nesterov .9"], 0, [1.34], 50) < [1.0] < growth(RULES["Nesterov .9"], 4, [1.34 / 20], 50)
    assert growth(RULES["SGD"], 0, [2.02], 50) > [1.0] > growth(RULES["SGD"], 4, [2.02 / 8], 50)


def test_a_parameter_of_a_run_is_a_rate_by_itself() -> None:
    """SGD without delay leaves 1 − x of the way a round, in fifty rounds |1 − x|^50; the largest rate comes last."""
    rates = [0.25, 1.5, 2.5, 3.0]
    assert growth(RULES["SGD"], 0, rates, 50) == pytest.approx([abs(1 - rate) ** 50 for rate in rates], rel=1e-6)


def test_three_runs_leave_a_bracket_a_sixth_of_a_percent_wide() -> None:
    """1 / 17 of the one before each, on a logarithmic scale; for SGD two rounds late 2 sin(π / 10) is in it."""
    low, high = measured(RULES["SGD"], 2)
    assert low < CLOSED["SGD", 2] < high
    assert math.log(high / low) == pytest.approx(math.log(BRACKET[1] / BRACKET[0]) / 17**3)
    assert high / low - 1 < 0.0017


def test_the_page_has_every_cell_and_what_is_measured_is_within_its_tolerance() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (.*\(.*\).*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in rows] == list(RULES)
    for name, cells in rows:
        for k, cell in zip(DELAYS, cells.split(" | "), strict=True):
            stable, known = map(float, re.fullmatch(r"(\S+) \((\S+)\)", cell).groups())  # type: ignore[union-attr]
            assert known == pytest.approx(derived(RULES[name], k), rel=5e-4)  # four digits
            assert stable == pytest.approx(known, rel=2.5e-3)
