"""A synthetic language whose best possible loss is known: a first-order Markov chain."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from halos import seeds
from halos.data import MOST_TOKENS, ArrayCorpus, DataOptions
from halos.errors import require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 8192  # samples drawn at a time: what one step needs stays in the cache


@dataclass(kw_only=True)
class Synthetic(DataOptions):
    """A Markov chain, whose entropy (the loss no model can beat) is known.

    Every token has `branching` possible successors of random probability.

    The language follows from these fields alone and only its samples from the run's seed, so that
    runs of different seeds have the same floor: `entropy`.
    """

    vocab_size: int = 64  # different tokens
    samples: int = 4096  # in the corpus, the validation tail included
    branching: int = 4  # possible successors of each token
    concentration: float = 1.0  # of their probabilities (Dirichlet): small is peaked, large is even

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = f"a positive number of tokens, {MOST_TOKENS} at most"
        require(1 <= self.vocab_size <= MOST_TOKENS, "vocab_size", self.vocab_size, wanted)
        require(
            1 <= self.branching <= self.vocab_size,
            "branching",
            self.branching,
            f"from 1 to vocab_size {self.vocab_size}",
        )
        require(
            math.isfinite(self.concentration) and self.concentration > 0,
            "concentration",
            self.concentration,
            "a positive, finite number",
        )
        needed = max(1, self.validation_samples + (1 if self.hold_out else 0))
        require(self.samples >= needed, "samples", self.samples, f"at least {needed} (see validation_samples)")

    def vocabulary(self) -> int:
        return self.vocab_size

    @property
    def entropy(self) -> float:
        """Nats per token that no model can predict: the entropy rate Σ_i π_i Σ_j −P_ij ln P_ij."""
        return self.chain().entropy

    def chain(self) -> Chain:
        """The language itself."""
        random = seeds.generator(0, "language", self.vocab_size, self.branching)
        # Sorted draws from a range shorter by branching − 1, plus 0, 1, 2 …, are different tokens.
        shape = (self.vocab_size, self.branching)
        successors = np.sort(random.integers(self.vocab_size - self.branching + 1, size=shape), axis=1)
        probabilities = random.dirichlet(np.full(self.branching, self.concentration), self.vocab_size)
        return Chain(successors + np.arange(self.branching), probabilities)

    def open(self, seed: int) -> ArrayCorpus:
        """Draw all samples."""
        chain = self.chain()
        dtype = np.uint16 if self.vocab_size <= 2**16 else np.int32
        if self.samples * (self.sequence_length + 1) >= 2**60:  # more than NumPy can count in bytes
            raise MemoryError(f"{self.samples:,} samples of {self.sequence_length + 1:,} tokens")
        samples = np.empty((self.samples, self.sequence_length + 1), dtype)
        for block, first in enumerate(range(0, self.samples, BLOCK)):
            part = samples[first : first + BLOCK]
            part[:] = chain.draw(len(part), self.sequence_length + 1, seeds.generator(seed, "synthetic", block)).T
        return ArrayCorpus(samples, self.vocab_size, hashlib.sha256(samples.data).hexdigest())


class Chain:
    """A Markov chain: tokens `successors[i]` follow token i with `probabilities[i]`, [tokens, branching] both."""

    def __init__(self, successors: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
        self.successors = successors
        self.probabilities = probabilities
        self.stationary = stationary(successors, probabilities)

    @property
    def entropy(self) -> float:
        """Nats per token, given the token before."""
        surprise = -np.log(np.where(self.probabilities > 0, self.probabilities, 1.0))
        return float(self.stationary @ (self.probabilities * surprise).sum(axis=1))

    def draw(self, samples: int, length: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Independent samples, one per column, [length, samples]; the first tokens have the stationary distribution."""
        tokens, branching = self.successors.shape
        # One sorted list for all rows: row i's cumulative probabilities lie between i and i + 1.
        ladder = np.cumsum(self.probabilities, axis=1)
        ladder[:, -1] = 1.0
        ladder = (ladder + np.arange(tokens)[:, None]).ravel()
        flat = self.successors.ravel()
        drawn = np.empty((length, samples), np.int64)
        drawn[0] = random.choice(tokens, samples, p=self.stationary)
        for before, after in pairwise(drawn):
            choice = np.searchsorted(ladder, before + random.random(samples), side="right")
            after[:] = flat[np.minimum(choice, (before + 1) * branching - 1)]  # i + u may be rounded up to i + 1
        return drawn


def stationary(successors: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution π = πP, by power iteration from the even one.

    Half of each step stays where it is, so that a periodic chain converges as well. A chain that mixes so slowly
    that this is not the end still changes too slowly to matter within a sample.
    """
    tokens = len(successors)
    share = np.full(tokens, 1 / tokens)
    for _ in range(10_000):
        flow = (share[:, None] * probabilities).ravel()
        moved = np.bincount(successors.ravel(), weights=flow, minlength=tokens)
        change = np.abs(moved - share).sum()
        share = (share + moved) / 2
        share /= share.sum()
        if change < 1e-12:
            break
    return share


@hookimpl
def register_data_sources(register: Register) -> None:
    register("synthetic", Synthetic)
