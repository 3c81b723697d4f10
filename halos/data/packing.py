"""Documents of any length joined end to end and cut into samples, as GPT-NeoX and Megatron make theirs.

Sample i is tokens i·L to (i + 1)·L of what is joined: L + 1 of them, the last of which is the first of the next sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos import seeds
from halos.data import memory
from halos.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(eq=False)
class Packed:
    """The corpus of documents that are joined, in a mapped file: samples to train on, then those to validate on."""

    data: NDArray[np.uint8]  # the file
    dtype: np.dtype[Any]  # of its tokens
    sequence_length: int  # L
    streams: tuple[Stream, Stream]  # documents to train on, and others
    samples: tuple[int, int]  # of either
    vocab_size: int
    hash: str
    sources: None = None

    def __len__(self) -> int:
        return sum(self.samples)

    def read(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        gathered = np.empty((len(numbers), self.sequence_length + 1), self.dtype)
        for target, number in zip(gathered, numbers, strict=True):
            part = number >= self.samples[0]
            start = (number - self.samples[0] * part) * self.sequence_length
            self._fill(target, self.streams[part], start)
        return gathered

    def _fill(self, target: NDArray[Any], stream: Stream, start: int) -> None:
        """Write the tokens of a stream from `start` on."""
        document, done, width = int(np.searchsorted(stream.ends, start, side="right")), 0, self.dtype.itemsize
        while done < len(target):
            first = int(stream.ends[document - 1]) if document else 0
            skipped = start + done - first
            count = min(len(target) - done, int(stream.ends[document]) - first - skipped)
            begin = int(stream.offsets[stream.order[document]]) + skipped * width
            target[done : done + count] = self.data[begin : begin + count * width].view(self.dtype)
            document, done = document + 1, done + count


@dataclass(eq=False)
class Stream:
    """Documents one after another."""

    order: NDArray[Any]  # which ones
    ends: NDArray[np.int64]  # tokens up to the end of each
    offsets: NDArray[Any]  # of every document there is, in the file, in bytes

    @classmethod
    def of(cls, order: NDArray[Any], lengths: NDArray[Any], offsets: NDArray[Any]) -> Stream:
        """Return the documents `order`, of these `lengths` (of all there are)."""
        return cls(order, np.cumsum(lengths[order], dtype=np.int64), offsets)

    @property
    def tokens(self) -> int:
        """How many there are in all."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def samples(self, length: int) -> int:
        """Return how many samples of `length` predicted tokens there are; what is left at the end fills none."""
        return max(0, (self.tokens - 1) // length)


def divided(
    lengths: NDArray[Any], validation: int, epochs: int, seed: Optional[int], name: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which documents are trained on, one after another, and which ones are held back for `validation` tokens.

    Whole documents are on one side or the other: the last ones of an order drawn by `seed` (None: as they lie in the
    file) are held back, just as many as it takes. The others come `epochs` times, each time in an order of its own.
    Documents without tokens are left out. Raises ConfigError if there are too few tokens, or too little memory.
    """
    count = len(lengths)
    memory.check("path", f"the order of {name}'s {count:,} documents, {epochs} times,", 20 * count * (epochs + 1))
    order = np.flatnonzero(lengths)
    order = order.astype(np.int32 if count < 2**31 else np.int64)
    if seed is not None:
        order = seeds.generator(seed, "documents").permutation(order)
    held = 0
    if validation:
        from_the_end = np.cumsum(lengths[order[::-1]], dtype=np.int64)
        held = int(np.searchsorted(from_the_end, validation)) + 1
        if held > len(order):
            there = int(from_the_end[-1]) if len(order) else 0
            raise ConfigError("path", f"{name} holds {there:,} tokens; the samples to validate on take {validation:,}")
    train, kept = order[: len(order) - held], order[len(order) - held :]
    passes = [train]
    for epoch in range(1, epochs):
        passes.append(train if seed is None else seeds.generator(seed, "documents", epoch).permutation(train))
    return np.concatenate(passes), kept
