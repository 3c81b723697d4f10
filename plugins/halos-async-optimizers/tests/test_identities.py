"""Special cases in which a rule is another one, the same in NumPy, and how large a learning rate may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from halos_async_optimizers import CGAD, MLA, Compensated, GapAware, HeLoCo, Poly, PolyThres

from halos import SGD, Adam, DelayedNesterov, Layout, MergeRule, Nesterov, Params, start_of

from .numbers_by_hand import ONE, params

LAYOUT = Layout({"embed": (3, 4), "weight": (2, 2, 2), "bias": (5,)}, torch.float64)
SIZE, STEPS = 25, 30
SLICES = [slice(0, 12), slice(12, 20), slice(20, 25)]
Drawn = list[tuple[Params, Params, int]]  # Δ, where it began, its age


def drawn(seed: int = 0, correlated: float = 0.0) -> Drawn:
    """Random arrivals; `correlated`: how much they have in common, so that a momentum has a direction."""
    generator = torch.Generator().manual_seed(seed)

    def some() -> torch.Tensor:
        return torch.randn(SIZE, generator=generator, dtype=torch.float64)

    common = some()
    ages = torch.randint(8, (STEPS,), generator=generator).tolist()
    return [(Params(LAYOUT, correlated * common + some()), Params(LAYOUT, some()), age) for age in ages]


def path(rule: MergeRule, arrivals: Drawn, late: bool = True) -> list[torch.Tensor]:
    """The model and where workers begin, after each arrival; not `late`: each began where a worker now would."""
    theta = Params(LAYOUT, torch.ones(SIZE, dtype=torch.float64))
    state, found = rule.init(theta), []
    for delta, base, age in arrivals:
        base = base if late else start_of(rule, theta, state)
        theta, state = rule.step(theta, delta, state, base=base, staleness=age if late else 0)
        start = start_of(rule, theta, state)
        assert theta.flat is not None and start.flat is not None
        found += [theta.flat, start.flat]
    return found


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, ours, theirs))


def near(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=tolerance, atol=tolerance)


INNER: list[MergeRule] = [SGD(0.3), Nesterov(0.1, 0.8), DelayedNesterov(0.4, 0.7, 3, 0.5), Adam(0.01), MLA(ahead=True)]


# 1


def test_mla_without_momentum_is_sgd() -> None:
    for ahead in (False, True):
        assert same(path(MLA(0.7, 0.0, ahead), drawn()), path(SGD(0.7), drawn()))


def test_mla_is_a_nesterov_and_an_sgd() -> None:
    lr, decay = 0.7, 0.9
    both = path(MLA(lr, decay), drawn())[::2]
    nesterov, sgd = (path(rule, drawn())[::2] for rule in (Nesterov(lr * (1 - decay), decay), SGD(lr * decay)))
    near(both, [a + b - 1.0 for a, b in zip(nesterov, sgd)])  # both from ones


def test_mla_moves_by_one_and_its_momentum_times_a_constant_difference() -> None:
    theta = params([0.0])
    state, before = MLA(0.7, 0.9).init(theta), theta
    for _ in range(400):
        before, (theta, state) = theta, MLA(0.7, 0.9).step(theta, params([1.0]), state)
    assert (before - theta).norm() == pytest.approx(0.7 * 1.9, rel=1e-12)


# 2


@pytest.mark.parametrize("per", ["tensor", "model"])
def test_heloco_that_corrects_nothing_is_mla_ahead(per: Any) -> None:
    assert same(path(HeLoCo(0.7, 0.9, c_ok=-2.0, per=per), drawn()), path(MLA(0.7, 0.9, ahead=True), drawn()))


def test_the_first_arrival_is_never_corrected() -> None:
    first = drawn(correlated=-3.0)[:1]
    for rule in (HeLoCo(), HeLoCo(c_ok=1.0), HeLoCo(per="model"), HeLoCo(k_s=9.0, k_d=9.0, kappa=0.0)):
        assert same(path(rule, first), path(MLA(ahead=True), first))


def correction(delta: np.ndarray[Any, Any], momentum: np.ndarray[Any, Any], rule: HeLoCo) -> np.ndarray[Any, Any]:
    """What HeLoCo makes of one tensor, as a page describes it, case by case."""
    n, m = math.sqrt(float(np.sum(delta**2))), math.sqrt(float(np.sum(momentum**2)))
    if n < rule.eps or m < rule.eps:
        return delta
    c = float(np.sum(delta * momentum)) / (n * m)
    conf = n / (n + rule.kappa * m + rule.eps)
    if c >= rule.c_ok:
        return delta
    if c < 0:
        return delta - min(rule.k_s * -c * conf, rule.beta_max) * c * n * momentum / m
    share = min(rule.k_d * (1 - c) * conf, 1.0)
    mix = (1 - share) * delta / n + share * momentum / m
    return n * mix / math.sqrt(float(np.sum(mix**2)))


@pytest.mark.parametrize("correlated", [0.0, 0.3])
def test_heloco_in_numpy(correlated: float) -> None:
    rule, theta, momentum = HeLoCo(0.3, 0.8, rho=0.5), np.ones(SIZE), np.zeros(SIZE)
    expected, cases = [], set()
    for delta, _, _ in drawn(1, correlated):
        assert delta.flat is not None
        given = delta.flat.numpy()
        pieces = [correction(given[piece], momentum[piece], rule) for piece in SLICES]
        cases |= {bool(np.array_equal(pieces[i], given[piece])) for i, piece in enumerate(SLICES)}
        g = 0.5 * np.concatenate(pieces)
        momentum = 0.8 * momentum + 0.2 * g
        theta = theta - 0.3 * (g + 0.8 * momentum)
        expected += [torch.from_numpy(theta), torch.from_numpy(theta - 0.3 * 0.8 * momentum)]
    assert cases == {True, False}, "some are kept and some corrected"
    near(path(rule, drawn(1, correlated)), expected)


def test_a_turned_difference_keeps_its_length_and_a_damped_one_what_it_should_along_the_momentum() -> None:
    # μ ½, lr 1. After Δ = (2, 0), m = (1, 0). θ then moves by G + m'/2, m' = m/2 + G/2: G is (that − m/4) / 1.25.
    layout = Layout({"w": (2,)}, torch.float64)
    rule = HeLoCo(1.0, 0.5)
    theta, state = rule.step(params([0, 0], layout), params([2, 0], layout), params([0, 0], layout))
    for delta in ([0.1, 1.0], [-0.6, 0.8]):
        moved, _ = rule.step(theta, params(delta, layout), state)
        assert theta.flat is not None and moved.flat is not None
        x, y = (((theta.flat - moved.flat) - torch.tensor([0.25, 0.0])) / 1.25).tolist()
        if delta[0] > 0:
            assert math.hypot(x, y) == pytest.approx(math.hypot(*delta), rel=1e-12)
            assert x > delta[0], "turned towards the momentum"
        else:  # c = −.6, conf = 1/(1 + 3): β = ½ · .6 / 4 = .075; left along m: −.6 (1 − .075)
            assert (x, y) == (pytest.approx(-0.6 * 0.925, rel=1e-7), pytest.approx(0.8, rel=1e-12))


# 4


@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_what_is_not_late_is_merged_by_the_bare_rule(inner: MergeRule) -> None:
    bare = path(inner, drawn(), late=False)
    around: list[MergeRule] = [
        Poly(inner), Poly(inner, 3.0), PolyThres(inner, threshold=0), CGAD(inner), CGAD(inner, 2.0, "none", 0.5),
        GapAware(inner), GapAware(inner, "model"), Compensated(inner), Compensated(inner, True),
        Poly(GapAware(Compensated(CGAD(inner)))),
    ]  # fmt: skip
    for rule in around:
        assert same(path(rule, drawn(), late=False), bare), rule


@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_without_strength_and_power_nothing_is_made_of_age(inner: MergeRule) -> None:
    late = path(inner, drawn())
    for rule in (Poly(inner, 0.0), Compensated(inner, strength=0.0), CGAD(inner, 0.0, "none", None)):
        assert same(path(rule, drawn()), late), rule


def test_equal_ages_cancel_in_adam() -> None:
    """Up to its ε: so a constant delay shows nothing of CGAD."""
    arrivals = [(delta, base, 3) for delta, base, _ in drawn()]
    near(path(CGAD(Adam(0.01, eps=1e-100)), arrivals), path(Adam(0.01, eps=1e-100), arrivals))
    mixed = path(CGAD(Adam(0.01, eps=1e-100)), drawn())
    assert float((mixed[-1] - path(Adam(0.01, eps=1e-100), drawn())[-1]).norm()) > 1e-3


# In NumPy


def test_gap_aware_in_numpy() -> None:
    theta, square, expected = np.ones(SIZE), np.zeros(SIZE), []
    velocity = np.zeros(SIZE)
    for t, (delta, base, age) in enumerate(drawn(2)):
        assert delta.flat is not None and base.flat is not None
        given = delta.flat.numpy()
        if age > 0 and t > 0:
            usual = np.sqrt(square / (1 - 0.999**t)) + 1e-8
            given = given / (1 + np.abs(theta - base.flat.numpy()) / usual)
        velocity = 0.8 * velocity + given
        after = theta - 0.1 * (given + 0.8 * velocity)
        square, theta = 0.999 * square + 0.001 * (after - theta) ** 2, after
        expected.append(torch.from_numpy(theta))
    near(path(GapAware(Nesterov(0.1, 0.8)), drawn(2))[::2], expected, 1e-9)


@pytest.mark.parametrize("adaptive", [False, True])
def test_compensation_in_numpy(adaptive: bool) -> None:
    theta, square, velocity, expected = np.ones(SIZE), np.zeros(SIZE), np.zeros(SIZE), []
    for delta, base, _ in drawn(3):
        assert delta.flat is not None and base.flat is not None
        given = delta.flat.numpy()
        square = 0.95 * square + 0.05 * given**2
        strength = 2 / np.sqrt(square + 1e-7) if adaptive else 0.04
        given = given + strength * given**2 * (theta - base.flat.numpy())
        velocity = 0.8 * velocity + given
        theta = theta - 0.1 * (given + 0.8 * velocity)
        expected.append(torch.from_numpy(theta))
    near(path(Compensated(Nesterov(0.1, 0.8), adaptive), drawn(3))[::2], expected)


# How large lr · a may be, on Δ = a · (where a worker begins), without delay


def largest(step: Callable[[float], np.ndarray[Any, Any]]) -> float:
    """The largest rate at which no eigenvalue of a linear iteration leaves the unit circle."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        if max(abs(np.linalg.eigvals(step(middle)))) <= 1.0:
            low = middle
        else:
            high = middle
    return low


def mla(rate: float, decay: float, ahead: bool) -> np.ndarray[Any, Any]:
    """(θ, lr m) → the next, with a = 1."""
    start = np.array([1.0, -decay if ahead else 0.0])
    momentum = decay * np.array([0.0, 1.0]) + (1 - decay) * rate * start
    theta = np.array([1.0, 0.0]) - decay * momentum - rate * start
    return np.stack([theta, momentum])


@pytest.mark.parametrize(("ahead", "limit"), [(False, 1.910), (True, 1.751)])
def test_the_largest_stable_rate(ahead: bool, limit: float) -> None:
    """By eigenvalues, and by what the rule does a little below and a little above."""
    exact = largest(lambda rate: mla(rate, 0.9, ahead))
    assert exact == pytest.approx(limit, abs=5e-4)
    if not ahead:  # an eigenvalue of −1: 2 (1 + γ) = rate (1 + 2 γ − γ²)
        assert exact == pytest.approx(3.8 / 1.99, rel=1e-9)

    def left(rate: float) -> float:
        rule, theta = MLA(rate, 0.9, ahead), Params(ONE, torch.ones(1, dtype=torch.float64))
        state = rule.init(theta)
        for _ in range(3000):
            theta, state = rule.step(theta, start_of(rule, theta, state), state)
        return theta.norm()

    assert left(exact * 0.99) < 1e-6
    assert left(exact * 1.01) > 1e6
