"""Every formula on vectors that one can work out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from halos_drift.measures import (
    Together,
    TypicalElements,
    TypicalStep,
    cosine,
    divergences,
    dot,
    norm,
    ratio,
    slices,
    tree_distance,
)

LN2 = math.log(2.0)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_norms_and_products() -> None:
    assert norm(vector(3.0, -4.0)) == 5.0
    assert dot(vector(1.0, 2.0), vector(3.0, -1.0)) == 1.0
    assert dot(vector(2.0, 3.0), vector(1.0, 2.0), vector(1.0, 2.0)) == 2.0 + 12.0  # Σ w x²


def test_sums_go_over_blocks_and_are_in_float64() -> None:
    # 300,000 numbers of 0.1 in single precision, the float32 next to 0.1: Σ = n x², as float64 has it.
    x = float(torch.tensor(0.1))
    assert norm(torch.full((300_000,), 0.1)) == pytest.approx(math.sqrt(300_000) * x, rel=1e-12)


def test_what_is_undefined_is_none_and_never_zero() -> None:
    assert ratio(1.0, 0.0) is None and ratio(None, 1.0) is None and ratio(1.0, math.inf) is None
    assert ratio(0.0, 2.0) == 0.0
    assert cosine(0.0, 0.0, 1.0) is None and cosine(0.0, 1.0, None) is None
    assert cosine(1.0 + 1e-15, 1.0, 1.0) == 1.0  # rounding does not go beyond
    assert cosine(-3.0, 2.0, 3.0) == -0.5
    assert cosine(-1e-200 * 1e-200, 1e-200, 1e-200) in (0.0, -0.0)  # no overflow on the way


def test_tree_distance_counts_edges_to_the_last_common_ancestor() -> None:
    # DiLoCo, M = 3, H = 4: the last worker's, after 8 steps of the same commit, is at its last gradient 8 + 3 away.
    assert tree_distance(0, 8, 4) == 3 * 4 - 1
    # One step at once: its own base, 0 edges.
    assert tree_distance(0, 0, 1) == 0
    # Asynchronous: 8 steps of two others merged meanwhile: (M − 1) H + H − 1.
    assert tree_distance(8, 0, 4) == 3 * 4 - 1
    # A base 20 steps off the branch is farther than the target: 20 + 4 − 1 against 8 + 4 − 1.
    assert tree_distance(8, 0, 4, apart=20) == 23


def test_the_tree_distance_is_that_of_the_tree() -> None:
    """By brute force: two workers, three steps each, merged one after the other; edges counted on the tree itself."""
    steps, parent = 3, {}

    def grow(name: str, start: str, count: int) -> list[str]:  # a branch of models, from `start` on
        chain = [start]
        for index in range(count):
            node = f"{name}{index}"
            parent[node] = chain[-1]
            chain.append(node)
        return chain

    main = grow("x", "root", 2 * steps)  # one gradient applied after the other, those of worker 0 first
    for worker in range(2):
        locals_ = grow(f"z{worker}-", "root", steps)  # where each of its gradients was computed
        worst = 0
        for k in range(steps):
            applied_to, computed_at = main[worker * steps + k], locals_[k]
            worst = max(worst, _edges(applied_to, computed_at, parent))
        assert worst == tree_distance(0, worker * steps, steps)


def _edges(one: str, other: str, parent: dict[str, str]) -> int:
    """The larger number of edges to the last common ancestor."""

    def up(node: str) -> list[str]:
        return [node, *up(parent[node])] if node in parent else [node]

    mine, theirs = up(one), up(other)
    shared = next(node for node in mine if node in theirs)
    return max(mine.index(shared), theirs.index(shared))


def test_the_typical_step_is_an_average_without_its_bias() -> None:
    typical = TypicalStep()
    assert typical.gap(0.0, 4) == 0.0  # no drift is no steps, whatever a step is
    assert typical.gap(1.0, 4) is None
    typical.add(6.0, 4)  # e = .001 · 36 / 4, over 1 − .999: 9, so C = 3
    assert typical.gap(12.0, 4) == pytest.approx((12 / 2) / 3, rel=1e-12)
    typical.add(2.0, 4)  # e = .999 · .009 + .001 · 1; n = 2
    c = math.sqrt((0.999 * 0.009 + 0.001) / (1 - 0.999**2))
    assert typical.gap(12.0, 4) == pytest.approx(6 / c, rel=1e-12)
    still = TypicalStep()
    still.add(0.0, 4)
    assert still.gap(1.0, 4) is None  # no step that moved: nothing to compare with


def test_the_typical_step_of_each_element_is_its_own() -> None:
    typical = TypicalElements()
    assert typical.gap(vector(1.0, 1.0, 1.0)) is None
    typical.add(vector(3.0, 0.0, -4.0))  # of one step, C_j is its size: 3, 0 and 4
    assert typical.gap(vector(6.0, 5.0, -4.0)) == pytest.approx((6 / 3 + 4 / 4) / 2, rel=1e-12)  # who stood is no one
    typical.add(vector(1.0, 2.0, 0.0))  # e_j = .001 · (.999 · 9 + 1, 4, .999 · 16), over 1 − .999² = .001 · 1.999
    c = [math.sqrt(each / 1.999) for each in (9.991, 4.0, 15.984)]
    expected = (6 / c[0] + 5 / c[1] + 4 / c[2]) / 3
    assert typical.gap(vector(6.0, 5.0, -4.0)) == pytest.approx(expected, rel=1e-12)
    still = TypicalElements()
    still.add(vector(0.0, 0.0))
    assert still.gap(vector(1.0, 0.0)) is None


def test_elements_are_counted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 1, …, 7 and a distance of 2 in each: 2 · (1 + 1/2 + … + 1/7) / 7, however they are cut.
    monkeypatch.setattr("halos_drift.measures.BLOCK", 3)
    typical = TypicalElements()
    typical.add(torch.arange(1.0, 8.0))
    assert typical.gap(torch.full((7,), 2.0)) == pytest.approx(2 * sum(1 / n for n in range(1, 8)) / 7, rel=1e-12)


def together(*vectors: torch.Tensor) -> Together:
    made = Together()
    for each in vectors:
        made.add(each, norm(each))
    return made


def test_the_spread_is_the_mean_cosine_of_pairs() -> None:
    # Three: at 0°, 60° and 90° of lengths 1, 2, 5: cosines ½, 0 and √3/2.
    three = vector(1.0, 0.0), vector(1.0, math.sqrt(3.0)), vector(0.0, 5.0)
    assert together(*three).spread() == pytest.approx((0.5 + 0.0 + math.sqrt(3) / 2) / 3, abs=1e-15)
    assert together(vector(1.0, 0.0)).spread() is None
    assert together(vector(1.0, 0.0), vector(0.0, 0.0)).spread() is None


def test_by_sums_is_by_pairs() -> None:
    several = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [
        float(torch.nn.functional.cosine_similarity(several[i], several[j], dim=0)) for i in range(7) for j in range(i)
    ]
    assert together(*several).spread() == pytest.approx(sum(pairs) / len(pairs), abs=1e-14)
    # Ξ² three ways: the deviations from the mean, the sums, half the mean squared distance over all ordered pairs.
    deviations = float((several - several.mean(0)).square().sum(1).mean())
    ordered = [float((one - other).square().sum()) for one in several for other in several]
    assert together(*several).consensus() == pytest.approx(deviations, rel=1e-13)
    assert together(*several).consensus() == pytest.approx(sum(ordered) / 49 / 2, rel=1e-13)


def test_divergences_of_two_coins() -> None:
    p, q = vector(0.5, 0.5), vector(0.25, 0.75)
    kl, js = divergences(p.log()[None], q.log()[None] + 3.0)  # logits: a constant is no matter
    # ½ ln 2 + ½ ln ⅔; the mixture is ⅜, ⅝.
    assert kl == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-15)
    middle = [0.375, 0.625]
    of_p = sum(0.5 * math.log(0.5 / m) for m in middle)
    of_q = 0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.625)
    assert js == pytest.approx((of_p + of_q) / 2, abs=1e-15)


def test_divergences_at_their_ends() -> None:
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    assert divergences(logits, logits) == (0.0, 0.0)
    sure = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])  # two that agree in nothing
    kl, js = divergences(*sure)
    assert kl == pytest.approx(1e4) and js == pytest.approx(LN2, abs=1e-15) and js <= LN2
    kl, js = divergences(torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]]))
    assert kl == math.inf and js == pytest.approx(LN2)


def test_divergences_are_sums_over_positions_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(2, 11, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = divergences(one, other)
    monkeypatch.setattr("halos_drift.measures.LOGITS", 12)
    assert divergences(one, other) == pytest.approx(whole, rel=1e-14)
    theirs = torch.nn.functional.kl_div(other.log_softmax(-1), one.log_softmax(-1), reduction="sum", log_target=True)
    assert whole[0] == pytest.approx(float(theirs), rel=1e-12)


def test_tensors_lie_one_after_another() -> None:
    assert list(slices({"w": (2, 3), "b": (3,)})) == [("w", slice(0, 6)), ("b", slice(6, 9))]
