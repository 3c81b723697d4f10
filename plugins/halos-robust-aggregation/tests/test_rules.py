"""Each rule on a few numbers by hand, and on drawn ones against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from halos_robust_aggregation.outliers import Detector

from halos import Layout, Params, Payload

from .payloads import RULES, TENSORS, combined, drawn, payloads, rule

HAND: list[tuple[str, dict[str, Any], list[float], float]] = [
    # (2 + 3 + 4) / 3
    ("trimmed_mean", {"b": 1}, [1, 100, 3, 2, 4], 3.0),
    ("trimmed_mean", {"b": 1}, [-50, 1, 2, 60], 1.5),
    ("trimmed_mean", {"b": 0}, [1, 2, 6], 3.0),
    ("median", {}, [1, 100, 3, 2, 4], 3.0),
    ("median", {}, [1, 100, 3, 2], 2.5),
    # Of five with f = 1 the two nearest count: 1 + 9, 1 + 4, 4 + 9, 49 + 81, 2500 + 2601.
    ("krum", {"f": 1}, [0, 1, 3, 10, -50], 1.0),
    ("multi_krum", {"f": 1}, [0, 1, 3, 10, -50], 3.5),
    ("multi_krum", {"f": 1, "m": 2}, [0, 1, 3, 10, -50], 0.5),
    # Of four the nearest: all have 1, so it is the first worker's.
    ("krum", {"f": 1}, [10, 11, 0, 1], 10.0),
    # From the mean 1: weights 1, 1, 1/2, so 1.5/2.5; from there 1/.6, 1/.6, 1/2.4, so 1.25/3.75.
    ("geometric_median", {"iterations": 1}, [0, 0, 3], 0.6),
    ("geometric_median", {"iterations": 2}, [0, 0, 3], 1 / 3),
    # From the mean 1, no step longer than the median distance 1: −1 − 1 + 1.
    ("centred_clipping", {"iterations": 1}, [0, 0, 3], 2 / 3),
    # One step of 1/2 each from the mean 1: −1/2 − 1/2 + 1/2.
    ("centred_clipping", {"iterations": 1, "radius": 0.5}, [0, 0, 3], 1 - 0.5 / 3),
    ("sign_majority", {"scale": 0.5}, [0.1, 7, -100], 0.5),
    ("sign_majority", {}, [1, 2, -6], 3.0),
    ("sign_majority", {}, [1, -2, 0], 0.0),
    ("ties", {}, [2, -1, -0.5], 2.0),
    ("ties", {"elect": "count"}, [2, -1, -0.5], -0.75),
    ("ties", {"elect": "count"}, [0, 3, -1], 1.5),
    ("ties", {}, [0, 0, -1], -1.0),
]


@pytest.mark.parametrize(("name", "options", "numbers", "expected"), HAND)
def test_by_hand(name: str, options: dict[str, Any], numbers: list[float], expected: float) -> None:
    assert combined(rule(name, **options), [[number] for number in numbers]) == [pytest.approx(expected, rel=1e-14)]


def test_coordinates_by_numpy() -> None:
    rows = drawn(0, 9)
    assert combined(rule("median"), rows) == pytest.approx(np.median(rows, axis=0), rel=1e-14)
    ordered = np.sort(rows, axis=0)
    assert combined(rule("trimmed_mean", b=2), rows) == pytest.approx(ordered[2:7].mean(axis=0), rel=1e-13)


@pytest.mark.parametrize(("f", "m"), [(1, 1), (2, 1), (3, 6), (2, 7)])
def test_krum_by_numpy(f: int, m: int) -> None:
    rows = drawn(f, 9)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(squared[i], i))[: 9 - f - 2].sum() for i in range(9)]
    expected = rows[sorted(np.argsort(scores, kind="stable")[:m])].mean(axis=0)
    assert combined(rule("multi_krum", f=f, m=m), rows) == pytest.approx(expected, rel=1e-13)


def test_the_geometric_median_has_the_smallest_sum_of_distances() -> None:
    rows = drawn(3, 6)
    z = np.array(combined(rule("geometric_median", iterations=500), rows))
    # At the minimum of Σ ‖z − Δ_i‖ the unit vectors add up to nothing.
    away = z - rows
    assert np.abs((away / np.linalg.norm(away, axis=1, keepdims=True)).sum(axis=0)).max() < 1e-9
    # An equilateral triangle's is its centre; of four corners, where the diagonals cross.
    assert combined(rule("geometric_median"), [[0, 0], [2, 0], [1, 3**0.5]]) == pytest.approx([1, 3**-0.5])
    assert combined(rule("geometric_median"), [[0, 0], [2, 1], [4, 0], [2, -7]]) == pytest.approx([2, 0], abs=1e-3)


def test_by_tensor_each_is_as_if_it_were_alone() -> None:
    rows = drawn(4, 5)
    for name, options in (
        ("geometric_median", {}),
        ("centred_clipping", {}),
        ("edit", {"warmup": None}),
        ("edit", {"warmup": None, "clip": 0.1, "clip_per": "tensor"}),
    ):
        whole = rule(name, **options, per="tensor")
        parts = [combined(whole, rows[:, :4]), combined(whole, rows[:, 4:])]
        assert combined(whole, rows, TENSORS) == pytest.approx(parts[0] + parts[1], rel=1e-13), name
        model = rule(name, **options, per="model")
        assert combined(model, rows, TENSORS) != pytest.approx(parts[0] + parts[1], rel=1e-3), name


def test_clipping_by_hand_for_two_collectives() -> None:
    clipping = rule("centred_clipping")
    numbers = [[1.0], [2.0], [9.0]]
    # From v = 0: distances 1, 2, 9, so steps 1, 2, 2: 5/3. From there 2/3, 1/3, 22/3: −2/3 + 1/3 + 2/3, so 16/9.
    # From there 7/9, 2/9, 65/9: −7/9 + 2/9 + 7/9, so 50/27.
    zero = payloads([[0.0]])[0].value
    for iterations, expected in ((1, 5 / 3), (2, 16 / 9), (3, 50 / 27)):
        once = rule("centred_clipping", iterations=iterations)
        assert combined(once, numbers, state=zero) == [pytest.approx(expected, rel=1e-14)]
    aggregate, v = clipping.combine(payloads(numbers), zero)
    assert aggregate is v
    # A second collective goes on from 50/27, where distances are again the median's at most for the first two.
    second = rule("centred_clipping", iterations=1)
    away = [1 - 50 / 27, 2 - 50 / 27, 23 / 27]
    assert combined(second, numbers, state=v) == [pytest.approx(50 / 27 + sum(away) / 3, rel=1e-13)]
    assert combined(rule("centred_clipping", iterations=1, radius=3.0), numbers, state=zero) == [2.0]  # 1 + 2 + 3


def test_edits_weights_are_those_of_the_softmax() -> None:
    edit = rule("edit", warmup=None)
    for short, long, share in ((0.1, 0.2, 0.525), (10.0, 11.0, 0.731)):  # of the shorter
        first, second = combined(edit, [[short, 0.0], [0.0, long]])
        assert first / short == pytest.approx(share, abs=5e-4)
        assert second / long == pytest.approx(1 - share, abs=5e-4)
        assert first / short == pytest.approx(1 / (1 + math.exp(short - long)), rel=1e-13)
    # Scale-free: norms 2/3 and 4/3 of their mean.
    first, _ = combined(rule("edit", warmup=None, scale_free=True), [[0.1, 0.0], [0.0, 0.2]])
    assert first / 0.1 == pytest.approx(1 / (1 + math.exp(-2 / 3)), rel=1e-13)
    first, _ = combined(rule("edit", warmup=None, temperature=0.1), [[0.1, 0.0], [0.0, 0.2]])
    assert first / 0.1 == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-13)


def test_edit_mixes_in_relative_steps() -> None:
    rows, steps = [[1.0, 0.0], [0.0, 1.0]], [30.0, 90.0]
    for r, expected in ((0.0, [0.5, 0.5]), (0.5, [0.375, 0.625]), (1.0, [0.25, 0.75])):
        assert combined(rule("edit", warmup=None, by_steps=r), rows, weights=steps) == pytest.approx(expected)


def test_edit_clips_what_is_too_long() -> None:
    rows = [[6.0, 8.0, 0.0, 0.0, 0.3, 0.0, 0.4]] * 2  # norms 10 and .5
    for per, first, last in (
        ("tensor", 5 / (10 + 1e-6), 1.0),
        ("model", 5 / (math.sqrt(100.25) + 1e-6), 5 / (math.sqrt(100.25) + 1e-6)),
    ):
        expected = [number * (first if index < 4 else last) for index, number in enumerate(rows[0])]
        made = rule("edit", warmup=None, clip=5.0, clip_per=per)
        assert combined(made, rows, TENSORS) == pytest.approx(expected, rel=1e-12), per


def test_edits_detector_finds_what_lies_above_its_biased_average() -> None:
    """Constant norms 1: after 10 of them the average is .183 and the deviation .383, so the threshold 1.3311."""
    edit = rule("edit", warmup=10)
    state = None
    for _ in range(10):
        _, state = edit.combine(payloads([[1.0], [1.0]]), state)
    detector = state[0, 0]
    assert (detector.mean, math.sqrt(detector.squared)) == pytest.approx((0.183, 0.383), abs=5e-4)
    assert combined(edit, [[1.33], [1.0]], state=state)[0] != 1.0
    assert combined(edit, [[1.332], [1.0]], state=state) == [1.0]  # all the weight is the other's
    _, after = edit.combine(payloads([[1.332], [1.0]]), state)
    assert after[0, 0] == detector, "an outlier leaves no trace"
    assert after[1, 0].norms == 11
    assert combined(edit, [[2.0], [-2.0]], state=state) == [0.0], "all are outliers"
    assert combined(edit, [[math.inf], [1.0]], state=state) == [1.0]


def test_edits_detector_after_120_collectives() -> None:
    edit = rule("edit")
    state = None
    for _ in range(120):
        _, state = edit.combine(payloads([[1.0]]), state)
    assert (state[0, 0].mean, math.sqrt(state[0, 0].squared)) == pytest.approx((0.911, 0.281), abs=5e-4)
    (low, below), (high, above) = ((norm, state[0, 0].finds(norm, 120, 3.0)) for norm in (1.75, 1.76))
    assert (low < 1.755 < high, below, above) == (True, False, True)


def test_a_tensor_that_begins_to_move_late_is_no_outlier_for_ever() -> None:
    """Norms of 0 have no deviation to go by; what is not finite is an outlier all the same."""
    edit = rule("edit", warmup=2)
    state = None
    for _ in range(3):
        _, state = edit.combine(payloads([[0.0], [0.0]]), state)
    assert combined(edit, [[math.inf], [1.0]], state=state) == [1.0]
    aggregate, state = edit.combine(payloads([[1.0], [1.0]]), state)
    assert aggregate.flat.tolist() == [1.0]
    # Now the average is .02 and M2 is .98 · .02 · .98: z of another 1 is .98 / .1386 = 7.07, too much; of .4 2.74.
    assert combined(edit, [[1.0], [0.4]], state=state) == [0.4]


def test_the_detector_against_its_definition() -> None:
    """With z of the warm-up as zeros, and a deviation over the last `warmup` of them."""
    warmup, a = 4, 0.1
    draws = np.random.default_rng(7).exponential(size=40)
    detector, mean, squared, zs = Detector(), 0.0, 0.0, []
    found = []
    for count, x in enumerate(draws):
        z = (x - mean) / math.sqrt(squared) if squared else 0.0
        outlier = len(zs) >= warmup and z > 3.0 * max(1.0, float(np.std(zs[-warmup:])))
        assert detector.finds(x, warmup, 3.0) == outlier, count
        found.append(outlier)
        if not outlier:
            delta = x - mean
            zs.append(z if len(zs) >= warmup else 0.0)
            mean = mean + a * delta
            squared = (1 - a) * (squared + a * delta * (x - mean))
            detector = detector.after(x, warmup, a)
            assert (detector.mean, detector.squared) == pytest.approx((mean, squared))
    assert any(found)
    assert not all(found[warmup:])


def test_trust_by_numpy_for_three_collectives() -> None:
    trust, state, rows = rule("trust"), None, [drawn(seed, 5) for seed in range(3)]
    aggregate, state = trust.combine(payloads(rows[0]), state)
    assert aggregate.flat.tolist() == combined(rule("geometric_median"), rows[0])
    last, scores = aggregate.flat.numpy(), np.zeros(5)
    for several in rows[1:]:
        norms = np.linalg.norm(several, axis=1)
        scores = 0.9 * scores + 0.1 * (several @ last) / norms / np.linalg.norm(last)
        weights = np.exp(scores / 0.1) / np.exp(scores / 0.1).sum()
        direction = (weights[:, None] * several / norms[:, None]).sum(axis=0)
        last = direction / np.linalg.norm(direction) * np.median(norms)
        aggregate, state = trust.combine(payloads(several), state)
        assert aggregate.flat.numpy() == pytest.approx(last, rel=1e-12)


def test_fewer_members_than_a_rule_needs_give_what_is_left_of_it() -> None:
    """Where faults take the others'."""
    assert combined(rule("trimmed_mean", b=2), [[1.0], [2.0], [30.0], [40.0]]) == [16.0]  # the median
    assert combined(rule("krum", f=2), [[0.0], [1.0], [5.0]]) == [0.0]  # the nearest one counts: 1, 1, 16
    assert combined(rule("krum", f=2), [[7.0]]) == [7.0]


def test_fp32_payloads_stay_fp32() -> None:
    layout = Layout({"vector": (3,)})
    several = [Payload(sender, Params(layout, torch.randn(3))) for sender in range(6)]
    for name in RULES:
        state = None
        for _ in range(2):
            aggregate, state = rule(name).combine(several, state)
            assert aggregate.flat is not None
            assert aggregate.flat.dtype == torch.float32, name


@pytest.mark.parametrize(("warmup", "ever"), [(1, True), (5, True), (6, False), (30, False)])
def test_after_a_short_warmup_the_same_norm_again_is_an_outlier(warmup: int, ever: bool) -> None:
    """Of equal norms z² = .98^(n−1) / (1 − .98^n) after n of them, both averages beginning at 0."""
    detector = Detector()
    for _ in range(warmup):
        detector = detector.after(1.0, warmup, 0.02)
    assert detector.z(1.0) == pytest.approx(math.sqrt(0.98 ** (warmup - 1) / (1 - 0.98**warmup)), rel=1e-12)
    assert detector.finds(1.0, warmup, 3.0) == ever


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["trimmed_mean", "median", "krum", "multi_krum"])
def test_what_is_not_finite_is_borne_by_rules_of_order_and_choice(name: str, bad: float) -> None:
    """Of 1, 2, 3, 4 and something else: nothing beyond the four, or the mean of some of them."""
    found = combined(rule(name), [[1.0], [2.0], [bad], [3.0], [4.0]])
    assert 1.0 <= found[0] <= 4.0
