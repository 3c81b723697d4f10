"""The language whose best possible loss is known."""

import math
from typing import Any

import numpy as np
import pytest

from halos.data.synthetic import Chain, Synthetic
from halos.errors import ConfigError


def test_two_states_have_the_textbook_entropy_rate() -> None:
    # Leave 0 with probability 1/4 and 1 with 1/2: π = (2/3, 1/3), entropy 2/3 H(1/4) + 1/3 ln 2.
    chain = Chain(np.array([[0, 1], [0, 1]]), np.array([[3 / 4, 1 / 4], [1 / 2, 1 / 2]]))
    quarter = 3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4)
    assert chain.stationary == pytest.approx([2 / 3, 1 / 3], abs=1e-9)
    assert chain.entropy == pytest.approx(2 / 3 * quarter + 1 / 3 * math.log(2), abs=1e-9)


def test_a_cycle_can_be_predicted_for_certain() -> None:
    chain = Chain(np.array([[1], [2], [0]]), np.ones((3, 1)))
    drawn = chain.draw(50, 7, np.random.default_rng(0))
    assert chain.entropy == 0
    assert (np.diff(drawn, axis=0) % 3 == 1).all()


def test_a_successor_of_probability_zero_never_comes() -> None:
    chain = Chain(np.array([[0, 1], [0, 1]]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    drawn = chain.draw(50, 7, np.random.default_rng(0))
    assert chain.entropy == 0
    assert (np.diff(drawn, axis=0) != 0).all()


def test_even_probabilities_leave_the_logarithm_of_the_branching() -> None:
    assert Synthetic(branching=4, concentration=1e9).entropy == pytest.approx(math.log(4), abs=1e-6)
    assert Synthetic(branching=1).entropy == pytest.approx(0, abs=1e-12)


def test_the_stationary_distribution_solves_its_equation() -> None:
    chain = Synthetic(vocab_size=20, branching=3).chain()
    matrix = np.zeros((20, 20))
    np.add.at(matrix, (np.arange(20)[:, None], chain.successors), chain.probabilities)
    equations = np.vstack([matrix.T - np.eye(20), np.ones(20)])
    solved, *_ = np.linalg.lstsq(equations, np.append(np.zeros(20), 1.0), rcond=None)
    assert chain.stationary == pytest.approx(solved, abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"vocab_size": 10, "branching": 10}, {"concentration": 0.3}])
def test_counting_pairs_of_tokens_finds_the_same_entropy(options: dict[str, Any]) -> None:
    source = Synthetic(samples=8192, **options)
    samples = source.open(5).samples.astype(np.int64)
    size = source.vocab_size
    pairs = np.bincount((samples[:, :-1] * size + samples[:, 1:]).ravel(), minlength=size * size).reshape(size, size)
    conditional = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    seen = pairs > 0
    measured = -(pairs[seen] * np.log(conditional[seen])).sum() / pairs.sum()
    assert measured == pytest.approx(source.entropy, abs=3e-3)  # two million pairs


def test_every_position_has_the_same_distribution() -> None:
    source = Synthetic(vocab_size=8, samples=40_000, sequence_length=4)
    samples = source.open(1).samples
    for position in range(5):
        frequency = np.bincount(samples[:, position], minlength=8) / 40_000
        assert frequency == pytest.approx(source.chain().stationary, abs=0.01)  # four standard deviations


def test_a_token_has_different_successors() -> None:
    for branching in (1, 3, 16):
        chain = Synthetic(vocab_size=16, branching=branching).chain()
        assert all(len(set(row)) == branching for row in chain.successors.tolist())
        assert chain.successors.min() >= 0
        assert chain.successors.max() < 16
        assert chain.probabilities.sum(axis=1) == pytest.approx(1.0)


def test_the_seed_draws_the_samples_but_not_the_language() -> None:
    source = Synthetic()
    one, again, other = source.open(1), source.open(1), source.open(2)
    assert (one.samples == again.samples).all()
    assert one.hash == again.hash
    assert (one.samples != other.samples).any()
    assert one.hash != other.hash
    assert source.entropy == Synthetic(samples=9000).entropy


def test_more_samples_begin_with_the_same_ones() -> None:
    few, many = Synthetic(samples=8192).open(1), Synthetic(samples=9000).open(1)
    assert (few.samples == many.samples[:8192]).all()


def test_the_corpus_is_what_was_asked_for() -> None:
    source = Synthetic(samples=600, sequence_length=10, vocab_size=70_000)
    opened = source.open(1)
    assert opened.samples.shape == (600, 11)
    assert opened.samples.dtype == np.int32
    assert source.vocabulary() == opened.vocab_size == 70_000 > opened.samples.max()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"vocab_size": 0}, "vocab_size: 0 is not a positive number of tokens, 2147483648 at most"),
        ({"branching": 65}, "branching: 65 is not from 1 to vocab_size 64"),
        ({"branching": 0}, "branching: 0 is not from 1 to vocab_size 64"),
        ({"concentration": 0.0}, "concentration: 0.0 is not a positive, finite number"),
        ({"concentration": math.nan}, "concentration: nan is not a positive, finite number"),
        ({"samples": 512}, "samples: 512 is not at least 513 (see validation_samples)"),
        ({"samples": 0, "validation_samples": 0}, "samples: 0 is not at least 1 (see validation_samples)"),
    ],
)
def test_options_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Synthetic(**options)
    assert str(caught.value) == problem
