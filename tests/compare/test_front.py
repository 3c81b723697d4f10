"""Who dominates whom, by hand."""

from __future__ import annotations

from halos.compare.front import dominators


def test_dominated_is_who_is_worse_in_something_and_better_in_nothing() -> None:
    costs = {
        "fast": [2.4, 200.0, 900.0],
        "cheap": [2.2, 1000.0, 36.0],
        "good": [1.7, 18_000.0, 4_300.0],
        "slow": [2.4, 300.0, 900.0],  # as fast, but slower
        "poor": [2.5, 2000.0, 950.0],  # worse than three of them in all; good takes longer
    }
    assert dominators(costs) == {
        "fast": [],
        "cheap": [],
        "good": [],
        "slow": ["fast"],
        "poor": ["fast", "cheap", "slow"],
    }


def test_equals_do_not_dominate_each_other() -> None:
    assert dominators({"a": [1.0, 2.0], "b": [1.0, 2.0]}) == {"a": [], "b": []}
    assert dominators({}) == {}
