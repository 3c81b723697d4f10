"""Each rule's first three steps, in numbers worked out here."""

from __future__ import annotations

import math

import pytest
import torch
from halos_async_optimizers import CGAD, MLA, Compensated, GapAware, HeLoCo, Poly, PolyThres

from halos import SGD, Adam, Layout, MergeRule, Nesterov, Params

from .numbers_by_hand import ONE, TWO, Arrival, arriving, flat, params


def thetas(rule: MergeRule, *arrivals: tuple[float, float | None, int]) -> list[float]:
    """One parameter from 0: (Δ, where it began, age) each."""
    given: list[Arrival] = [([delta], None if base is None else [base], age) for delta, base, age in arrivals]
    return flat(arriving(rule, given)[0])


def test_mla() -> None:
    # m = .5, 1.25, .125; θ = −½ (¼ + 1), then −½ (.625 + 2) and −½ (.0625 − 1) more; starts are .25 m before θ.
    arrivals: list[Arrival] = [([1.0], None, 0), ([2.0], None, 3), ([-1.0], None, 1)]
    behind, at_theta = arriving(MLA(lr=0.5, momentum=0.5), arrivals)
    assert flat(behind) == pytest.approx([-0.625, -1.9375, -1.46875], abs=1e-15)
    assert at_theta == behind
    models, starts = arriving(MLA(lr=0.5, momentum=0.5, ahead=True), arrivals)
    assert models == behind
    assert flat(starts) == pytest.approx([-0.75, -2.25, -1.5], abs=1e-15)


def test_heloco_tensor_by_tensor() -> None:
    """lr 1, μ ½, κ 1. Two tensors, in each step another case."""
    rule = HeLoCo(lr=1.0, momentum=0.5, kappa=1.0, eps=1e-14)
    half = math.sqrt(0.5)
    models, starts = arriving(
        rule,
        [
            ([2, 0, 2, 0], None, 0),
            ([-3, 4, 0, 1], None, 5),
            ([-1.25, 4, -(1 + half), -half], None, 2),
        ],
        TWO,
    )
    # 1: m = 0, so G = Δ. m = (1, 0) in both, θ = −(2 + ½, 0), starts ½ m before it.
    assert models[0] == pytest.approx([-2.5, 0, -2.5, 0], abs=1e-12)
    assert starts[0] == pytest.approx([-3, 0, -3, 0], abs=1e-12)
    # 2a: ‖Δ‖ = 5, c = −.6, conf = 5/6, β = ½ · .6 · 5/6 = ¼: G = (−3, 4) + ¼ · .6 · 5 (1, 0) = (−2.25, 4).
    #     m = (½ − 1.125, 2) = (−.625, 2); θ = (−2.5, 0) − (−2.25 − .3125, 4 + 1) = (.0625, −5).
    # 2b: c = 0 < .2, conf = ½ = λ: the mix (½, ½) has the norm √½, so G = (√½, √½).
    #     m = (½ + ½√½, ½√½); θ = (−2.5, 0) − (√½ + ¼ + ¼√½, √½ + ¼√½) = (−2.75 − 1.25√½, −1.25√½).
    assert models[1] == pytest.approx([0.0625, -5, -2.75 - 1.25 * half, -1.25 * half], abs=1e-12)
    # 3a: Δ = 2 m, c = 1: G = Δ. m = (−.3125 − .625, 1 + 2) = (−.9375, 3); θ = (.0625 + 1.25 + .46875, −5 − 4 − 1.5).
    # 3b: Δ = −2 m, c = −1, conf = ⅔, β = ⅓: G = −2 m + ⅓ · 2 m = −4/3 m. m' = (½ − ⅔) m = −m/6;
    #     θ = θ + 4/3 m + m/12 = θ + 17/12 m.
    before = (0.5 + 0.5 * half, 0.5 * half)
    b = [-2.75 - 1.25 * half + 17 / 12 * before[0], -1.25 * half + 17 / 12 * before[1]]
    assert models[2] == pytest.approx([1.78125, -10.5, *b], abs=1e-12)
    ahead = [1.78125 + 0.46875, -10.5 - 1.5, b[0] + before[0] / 12, b[1] + before[1] / 12]
    assert starts[2] == pytest.approx(ahead, abs=1e-12)


def test_heloco_of_the_whole_model_and_with_rho() -> None:
    # Δ = (2, 0, 2, 0), ρ ½: G = (1, 0, 1, 0), m = (½, 0, ½, 0), θ = −(1.25, 0, 1.25, 0).
    # Δ = (−3, 4, 0, 0): one c = −3 · ½ / (5 · √½) = −.3 √2 of both tensors, ‖m‖ = √½, κ 1, conf = 5 / (5 + √½),
    # β = .15 √2 conf, m̂ = (√½, 0, √½, 0): −β c ‖Δ‖ m̂ = β · .3 √2 · 5 · √½ = 1.5 β in the first and third.
    rule = HeLoCo(lr=1.0, momentum=0.5, kappa=1.0, eps=1e-14, rho=0.5, per="model")
    models, _ = arriving(rule, [([2, 0, 2, 0], None, 0), ([-3, 4, 0, 0], None, 0)], TWO)
    assert models[0] == pytest.approx([-1.25, 0, -1.25, 0], abs=1e-12)
    beta = 0.15 * math.sqrt(2) * 5 / (5 + math.sqrt(0.5))
    corrected = [0.5 * (-3 + 1.5 * beta), 2.0, 0.5 * 1.5 * beta, 0.0]  # ρ G
    momentum = [0.25 + 0.5 * corrected[0], 1.0, 0.25 + 0.5 * corrected[2], 0.0]
    expected = [t - g - 0.5 * m for t, g, m in zip(models[0], corrected, momentum)]
    assert models[1] == pytest.approx(expected, abs=1e-12)


def test_heloco_damps_at_most_so_much() -> None:
    # Δ = −10, m = 1 (after Δ = 2, μ ½): c = −1, κ 0: conf = 1, β = min(3, .5): G = −10 + ½ · 10 = −5.
    # θ = −2.5 − (−5 + ½ (½ − 2.5)) = 3.5.
    rule = HeLoCo(lr=1.0, momentum=0.5, kappa=0.0, k_s=3.0, eps=1e-14)
    assert thetas(rule, (2.0, None, 0), (-10.0, None, 0)) == pytest.approx([-2.5, 3.5], abs=1e-12)


def test_poly_in_front_of_the_momentum() -> None:
    # Ages 0, 3, 8: Δ / 1, / 2, / 3 = 1, 1, 1. Nesterov, lr 1, μ ½: v = 1, 1.5, 1.75; θ = −1.5, −1.75 and −1.875 more.
    arrivals = (1.0, None, 0), (2.0, None, 3), (3.0, None, 8)
    assert thetas(Poly(Nesterov(1.0, 0.5)), *arrivals) == pytest.approx([-1.5, -3.25, -5.125], abs=1e-15)
    # Δ / (1 + s): 1, ½, ⅓.
    assert thetas(Poly(SGD(1.0), power=1.0), *arrivals) == pytest.approx([-1, -1.5, -1.5 - 1 / 3], abs=1e-15)


def test_poly_thres_is_poly_and_refuses_what_is_older() -> None:
    rule, arrivals = PolyThres(Nesterov(1.0, 0.5)), ((1.0, None, 0), (2.0, None, 3), (3.0, None, 8))
    assert thetas(rule, *arrivals) == thetas(Poly(Nesterov(1.0, 0.5)), *arrivals)
    assert [rule.refuses(age) for age in (0, 1, 10, 11, 100)] == [False, False, False, True, True]
    for inside in (GapAware(Poly(PolyThres(threshold=0))), PolyThres(PolyThres(threshold=0))):
        assert [inside.refuses(age) for age in (0, 1)] == [False, True]
    assert not Poly().refuses(10**6)


def test_cgad() -> None:
    # α = ln 2, cutoff 4: g e^(−αs) is 1 at age 0, ½ (1 + cos 90°) / 4 = ⅛ at 2, and nothing at 4.
    rule = CGAD(SGD(1.0), alpha=math.log(2), cutoff=4.0)
    assert thetas(rule, (8.0, None, 0), (8.0, None, 2), (8.0, None, 4)) == pytest.approx([-8, -9, -9], abs=1e-14)
    # Adam, β ½ and ½, lr 1: Δ = 1; 8/8 = 1; and 0. Bias-corrected moments are 1 and 1 twice, so −1 each;
    # then m = v = ⅜ over 1 − ⅛, 3/7: a step of (3/7) / √(3/7) = √(3/7).
    adam = CGAD(Adam(1.0, (0.5, 0.5), 1e-14), alpha=math.log(2), cutoff=4.0)
    given = (1.0, None, 0), (8.0, None, 2), (8.0, None, 4)
    assert thetas(adam, *given) == pytest.approx([-1, -2, -2 - math.sqrt(3 / 7)], abs=1e-12)


def test_adam_with_decay() -> None:
    rule = CGAD(SGD(1.0), alpha=math.log(2), gate="none", cutoff=None)  # ages 0, 2, 5: 1, ¼ and 1/32 of 32
    given = (32.0, None, 0), (32.0, None, 2), (32.0, None, 5)
    assert thetas(rule, *given) == pytest.approx([-32, -40, -41], abs=1e-13)


def test_gap_aware() -> None:
    # SGD(1). θ = 2 after Δ = −2: e = .001 · 4, t = 1, so C = 2. Δ = −2 from 0, |θ − θ_b| = 2: half of it, θ = 3.
    # e = .999 · .004 + .001 · 1 = .004996, over 1 − .998001 = .001999. Δ = −2 from 0, the gap is 3.
    third = 2 / (1 + 3 / (math.sqrt(0.004996 / 0.001999) + 1e-8))
    given = (-2.0, 0.0, 0), (-2.0, 0.0, 1), (-2.0, 0.0, 2)
    assert thetas(GapAware(SGD(1.0)), *given) == pytest.approx([2, 3, 3 + third], abs=1e-8)


def test_gap_aware_leaves_alone_what_is_not_late_and_the_first() -> None:
    rule = GapAware(SGD(1.0))
    assert thetas(rule, (-2.0, 5.0, 3), (-2.0, 0.0, 0), (-2.0, None, 4)) == [2, 4, 6]


def test_gap_aware_by_root_mean_squares() -> None:
    # Δ = (−3, −4, 0, 0): θ = (3, 4, 0, 0), C = √(25/4). From 0 the gap's root mean square is the same: half of Δ.
    rule = GapAware(SGD(1.0), per="model")
    models, _ = arriving(rule, [([-3, -4, 0, 0], [0] * 4, 0), ([0, 0, -2, 0], [0] * 4, 1)], TWO)
    assert models[1] == pytest.approx([3, 4, 1, 0], abs=1e-7)
    # Element by element the third has not moved, and has no usual step: 0 / 1e-8 steps away, so Δ counts whole.
    models, _ = arriving(GapAware(SGD(1.0)), [([-3, -4, 0, 0], [0] * 4, 0), ([0, 0, -2, 0], [0] * 4, 1)], TWO)
    assert models[1] == pytest.approx([3, 4, 2, 0], abs=1e-12)


def test_compensation() -> None:
    # λ ½, SGD(1): θ = 2; −1 + ½ · 1 · (2 − 0) = 0; 2 + ½ · 4 · (2 − 1) = 4.
    rule = Compensated(SGD(1.0), strength=0.5)
    assert thetas(rule, (-2.0, 0.0, 0), (-1.0, 0.0, 1), (2.0, 1.0, 1)) == pytest.approx([2, 2, -2], abs=1e-15)
    # λ .04 unless said: −1 + .04 · 2 = −.92.
    assert thetas(Compensated(SGD(1.0)), (-2.0, 0.0, 0), (-1.0, 0.0, 1)) == pytest.approx([2, 2.92], abs=1e-15)


def test_adaptive_compensation() -> None:
    # MS = .05 · 4 = .2, .19 + .05 = .24, .228 + .05 · 4 = .428; λ = 2 / √(MS + 1e-7).
    second = 1 - 2 / math.sqrt(0.24 + 1e-7) * 1 * 2
    third = -(2 + 2 / math.sqrt(0.428 + 1e-7) * 4 * (2 + second - 1))
    given = (-2.0, 0.0, 0), (-1.0, 0.0, 1), (2.0, 1.0, 1)
    found = thetas(Compensated(SGD(1.0), adaptive=True), *given)
    assert found == pytest.approx([2, 2 + second, 2 + second + third], abs=1e-12)


@pytest.mark.parametrize("around", [GapAware, Compensated])
def test_how_far_the_model_has_moved_is_counted_from_where_workers_begin(around: type[GapAware]) -> None:
    """MLA, lr ½, γ ½, ahead: after Δ = 1, θ = −.625 and workers begin at −.75 (above)."""
    inside = MLA(lr=0.5, momentum=0.5, ahead=True)
    bare = thetas(inside, (1.0, 0.0, 0), (2.0, -0.75, 0))
    assert thetas(around(inside), (1.0, 0.0, 0), (2.0, -0.75, 1)) == bare  # what is asked to be late, and is not
    assert thetas(around(inside), (1.0, 0.0, 0), (2.0, -0.625, 1)) != bare


def test_parts_of_the_model_are_tensors_of_their_own() -> None:
    """A fragment that cuts a matrix in two: what is left of it is corrected by itself."""
    layout = Layout({"matrix": (2, 2), "bias": (2,)}, torch.float64)
    fragment = (slice(2, 4), slice(4, 6))  # half of the matrix, all of the bias
    part = layout.part(fragment)
    theta = Params(layout, torch.zeros(6, dtype=torch.float64))[fragment]
    rule, state = HeLoCo(lr=1.0, momentum=0.5, kappa=1.0, eps=1e-14), None
    state = rule.init(theta)
    for delta in ([2, 0, 2, 0], [-3, 4, 0, 1]):  # as in the first test
        theta, state = rule.step(theta, params(delta, part), state)
    half = math.sqrt(0.5)
    assert theta.flat is not None
    assert theta.flat.tolist() == pytest.approx([0.0625, -5, -2.75 - 1.25 * half, -1.25 * half], abs=1e-12)


def test_what_is_not_finite_is_seen() -> None:
    for rule in (MLA(), HeLoCo(), Poly(), CGAD(), GapAware(), Compensated()):
        theta = params([1.0], ONE)
        moved, _ = rule.step(theta, params([math.nan], ONE), rule.init(theta), base=theta, staleness=1)
        assert moved.flat is not None and bool(moved.flat.isnan().all()), rule
