"""Rules that become each other: identities 12 to 14 of the notes on algorithms (the order and scale of payloads are the
conformance suite's)."""

from __future__ import annotations

import math

import pytest

from .payloads import TENSORS, combined, drawn, payloads, rule


@pytest.mark.parametrize("members", [1, 2, 3, 7, 8])
def test_rules_that_are_the_mean_to_the_last_bit(members: int) -> None:
    rows = drawn(members, members)
    mean = combined(rule("mean"), rows, TENSORS)
    assert combined(rule("trimmed_mean", b=0), rows, TENSORS) == mean
    assert combined(rule("multi_krum", f=0, m=members), rows, TENSORS) == mean
    for r in (0.0, 0.5):
        assert combined(rule("edit", temperature=math.inf, warmup=None, by_steps=r), rows, TENSORS) == mean
    turned = [rows[0] * (1 if worker % 2 else -1) * (-1) ** (worker // 2) for worker in range(members)]  # equal norms
    assert combined(rule("edit", warmup=None), turned, TENSORS) == combined(rule("mean"), turned, TENSORS)


@pytest.mark.parametrize("members", [1, 3, 5, 7])
def test_all_but_the_middle_trimmed_is_the_median(members: int) -> None:
    rows = drawn(members, members)
    assert combined(rule("trimmed_mean", b=(members - 1) // 2), rows) == combined(rule("median"), rows)


def test_of_two_the_geometric_median_is_the_mean() -> None:
    assert combined(rule("geometric_median"), [[1.0, -2.0], [3.0, 4.0]]) == [2.0, 1.0]
    rows = drawn(0, 2)
    assert combined(rule("geometric_median"), rows) == pytest.approx(combined(rule("mean"), rows), rel=1e-13)


def test_nothing_clipped_it_is_the_mean_from_anywhere() -> None:
    once = rule("centred_clipping", radius=math.inf, iterations=1)
    anywhere = payloads([[5.0, -8.0]])[0].value
    assert combined(once, [[1.0, 2.0], [3.0, -2.0]], state=anywhere) == [2.0, 0.0]
    rows = drawn(0, 6)
    far = payloads(10 * drawn(1, 1))[0].value
    assert combined(once, rows, state=far) == pytest.approx(combined(rule("mean"), rows), abs=1e-13)


def test_by_steps_alone_edit_weighs_as_the_mean_does() -> None:
    rows, steps = drawn(2, 4), [10.0, 20.0, 30.0, 4.0]
    edit = combined(rule("edit", by_steps=1.0, warmup=None), rows, TENSORS, weights=steps)
    assert edit == pytest.approx(combined(rule("mean"), rows, TENSORS, weights=steps), rel=1e-13)
