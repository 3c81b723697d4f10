"""Data: sources of fixed-length samples, and the order in which workers are dealt them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Protocol

import numpy as np

from halos.data import arrays
from halos.errors import ConfigError, require, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_TOKENS = 2**31  # different ones: far more than any embedding has rows
SHARDS = ("shared", "iid", "by_region", "by_source")


@dataclass(kw_only=True)
class DataOptions:
    """A source of samples: the keys that all of them have, beside its own."""

    sequence_length: int = 256  # predicted tokens per sample; a sample holds one token more
    validation_samples: int = 512  # at the end of the corpus, on which the model is evaluated; 0: never
    hold_out: bool = True  # never train on those (the original simulator does)
    shuffle: bool = True  # training samples, by the run's seed, in another order in every epoch
    # `shared`: one cursor for all workers, in order of dispatch, as in the original. `iid`: a random equal part for
    # each worker. `by_region`: a contiguous part for each region. `by_source`: whole sources (packages, files, …) to
    # each region, of about equal size.
    shards: str = "shared"
    wrap: bool = True  # start over at the end, with a note of the epoch; false: reading past it is an error
    seed: Optional[int] = None  # of the order in which samples are dealt, and of `iid`; null: the run's
    # Of the corpus and so of what is held out (in `text` the order of documents, in `synthetic` all samples); null: the
    # run's.
    split_seed: Optional[int] = None

    def __post_init__(self) -> None:
        require(self.sequence_length >= 1, "sequence_length", self.sequence_length, "a positive number of tokens")
        require(self.validation_samples >= 0, "validation_samples", self.validation_samples, "a number of samples")
        require(self.shards in SHARDS, "shards", self.shards, "one of " + ", ".join(SHARDS))

    def vocabulary(self) -> Optional[int]:
        """Return None: unknown before it is opened, or samples are no tokens. Sources that know it say so."""
        return None


class Corpus(Protocol):
    """An opened source: `len(corpus)` samples, of `sequence_length + 1` tokens each unless they are no tokens.

    It may also have `bytes_per_token`, how many bytes of text a token stands for on average, and `tokenizer`, a text
    that is the same for the same tokenizer: without them, or None, they are unknown.
    """

    @property
    def vocab_size(self) -> Optional[int]:
        """The number of different tokens there can be: all are below it. None: samples are no tokens."""
        ...

    @property
    def hash(self) -> str:
        """A hash of the content, hexadecimal: the same for the same samples, whichever the seed deals first."""
        ...

    @property
    def sources(self) -> Optional[Sequence[int] | NDArray[Any]]:
        """Each sample's source (file, folder, language …) by number, for `by_source`; None if there is only one."""
        ...

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def read(self, rows: slice | NDArray[np.int64]) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Return samples by number, as an integer array [len(rows), sequence_length + 1]; a slice is not copied.

        Samples that are no tokens are one array [len(rows), …] of numbers, or a tuple of them (images and labels).
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayCorpus:
    """The corpus whose samples are the rows of one array, or of several, in memory or mapped from a file.

    Tensors become arrays. Raises UserError for what holds no numbers, or unequally many samples.
    """

    # Tokens are integers [samples, sequence_length + 1]; without a vocab_size, anything [samples, …], or a tuple.
    samples: Any
    vocab_size: Optional[int] = None  # tokens are below it; None: samples are no tokens
    hash: str = ""  # of the content, hexadecimal; none: it is worked out
    sources: Optional[NDArray[Any]] = None  # which source each sample is from, for `by_source`
    bytes_per_token: Optional[float] = None  # of text, on average; None: unknown
    tokenizer: Optional[str] = None  # the same for the same tokenizer; None: unknown

    def __post_init__(self) -> None:
        several = isinstance(self.samples, tuple)
        parts = tuple(arrays.numbers(part) for part in (self.samples if several else [self.samples]))
        arrays.check(parts)
        object.__setattr__(self, "samples", parts if several else parts[0])
        if not self.hash:
            object.__setattr__(self, "hash", arrays.digest(parts))

    def __len__(self) -> int:
        return len(self.samples[0] if isinstance(self.samples, tuple) else self.samples)

    def read(self, rows: slice | NDArray[np.int64]) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        if isinstance(self.samples, tuple):
            return tuple(part[rows] for part in self.samples)
        part: NDArray[Any] = self.samples[rows]
        return part


class DataSource(Protocol):
    """A source's configuration: opened only when training is real. Inherit DataOptions for its fields."""

    sequence_length: int  # predicted tokens per sample
    validation_samples: int  # at the end of the corpus
    hold_out: bool  # never train on those
    shuffle: bool  # training samples, anew in every epoch
    shards: str  # `shared`, `iid`, `by_region` or `by_source`
    wrap: bool  # start over at the end

    def vocabulary(self) -> Optional[int]:
        """Return the number of different tokens there can be; None if that is not known without opening anything."""
        ...

    def open(self, seed: int) -> Corpus:
        """Open the source and return its samples; `seed` is its `split_seed`, or the run's.

        Raises UserError that says what is missing or broken.
        """
        ...


def check_vocabulary(vocab_size: Optional[int]) -> None:
    """ConfigError unless an embedding could have so many rows, or nobody knows how many there are."""
    if vocab_size is None:
        return
    whole = isinstance(vocab_size, (int, np.integer)) and not isinstance(vocab_size, bool)
    if not whole or not 1 <= vocab_size <= MOST_TOKENS:
        raise ConfigError("", f"a vocabulary of {shown(vocab_size)} tokens; there can be 1 to {MOST_TOKENS}")
