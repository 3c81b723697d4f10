"""Megatron's memory-mapped pairs of .bin and .idx, the format in which Pythia's training data is published."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.data import MOST_TOKENS, ArrayCorpus, Corpus, DataOptions
from halos.data.megatron_index import DTYPES, HEADER, MAGIC, Index, read_index
from halos.data.packing import Packed, Stream, divided
from halos.data.tokens import CHUNK, check_file, file_hash, largest
from halos.errors import ConfigError, UserError, from_here, require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(kw_only=True)
class Megatron(DataOptions):
    """A memory-mapped pair of `.bin` and `.idx`, as Megatron, GPT-NeoX and fairseq write them, of either index format.

    If every sequence holds `sequence_length + 1` tokens (Pythia's preshuffled data: 2049), each is one sample. Else
    sequences are documents, packed: joined in an order drawn by the seed and cut into windows that overlap by one
    token, the documents of the validation samples apart from those to train on. Nothing is put between documents: their
    end of text is in the file.
    """

    path: Path  # without `.bin` and `.idx`
    vocab_size: Optional[int] = None  # null: the largest token plus one, for which the whole .bin is read
    pack: Optional[bool] = None  # null: if sequences are of other lengths; false: those are an error; true: always
    epochs: int = 1  # passes that are packed one after another, each in an order of its own; then samples come again

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.vocab_size is None or 1 <= self.vocab_size <= MOST_TOKENS,
            "vocab_size",
            self.vocab_size,
            f"a positive number of tokens, {MOST_TOKENS} at most",
        )
        require(1 <= self.epochs <= 1000, "epochs", self.epochs, "from 1 to 1000")

    def vocabulary(self) -> Optional[int]:
        return self.vocab_size

    def open(self, seed: int) -> Corpus:
        """Map both files, after checking that what the index says can be true."""
        given = from_here(self.path)
        prefix = given.removesuffix(".bin").removesuffix(".idx")
        idx, bin_ = Path(prefix + ".idx"), Path(prefix + ".bin")
        for path in (idx, bin_):
            check_file(path)
        try:
            index = read_index(idx)
            packed = self._is_packed(idx, index.lengths)
            check_offsets(idx, index, bin_.stat().st_size)
            data = np.asarray(np.memmap(bin_, np.uint8, "r"))
            digest = hashlib.sha256((file_hash(idx) + file_hash(bin_)).encode()).hexdigest()
        except OSError as error:
            raise ConfigError("path", f"{error.filename!r} cannot be read: {error.strerror}") from None
        vocab_size = self.vocab_size or top(index, data, Path(given)) + 1
        if packed:
            return self._packed(index, data, vocab_size, digest, seed)
        width = (self.sequence_length + 1) * index.dtype.itemsize
        if adjacent(index.offsets, width):
            first = int(index.offsets[0])
            samples = data[first : first + len(index.offsets) * width].view(index.dtype)
            return ArrayCorpus(samples.reshape(len(index.offsets), -1), vocab_size, digest)
        return Scattered(data, index.offsets, index.dtype, width, vocab_size, digest)

    def _packed(self, index: Index, data: NDArray[np.uint8], vocab_size: int, digest: str, seed: int) -> Packed:
        length, name = self.sequence_length, repr(from_here(self.path))
        validation = self.validation_samples * length + 1 if self.validation_samples else 0
        orders = divided(index.lengths, validation, self.epochs, seed if self.shuffle else None, name)
        train, kept = (Stream.of(order, index.lengths, index.offsets) for order in orders)
        if not train.samples(length) and (self.hold_out or not validation):
            after = f" after the {len(kept.order)} documents to validate on" if validation else ""
            raise ConfigError(
                "path",
                f"{name} holds {train.tokens:,} tokens{after}, in {len(train.order)} documents; "
                f"one sample of sequence_length {length} takes {length + 1}",
            )
        samples = train.samples(length), self.validation_samples
        return Packed(data, index.dtype, length, (train, kept), samples, vocab_size, digest)

    def _is_packed(self, idx: Path, lengths: NDArray[Any]) -> bool:
        """Whether samples are made of documents. Unless they may be, every sequence must be one sample, as it is."""
        expected, other = self.sequence_length + 1, False
        for first, chunk in chunks(lengths):
            for bad in np.flatnonzero(chunk < 0)[:1]:
                raise ConfigError("path", f"{str(idx)!r} is damaged: sequence {first + bad} holds {chunk[bad]} tokens")
            for bad in np.flatnonzero(chunk != expected)[:1]:
                other = True
                if self.pack is False:
                    raise ConfigError(
                        "path",
                        f"{str(idx)!r}: sequence {first + bad} holds {chunk[bad]} tokens; sequence_length "
                        f"{self.sequence_length} takes {expected} (pack: true joins sequences and cuts them)",
                    )
        return other or self.pack is True


@dataclass(eq=False)
class Scattered:
    """The corpus whose sequences do not simply follow each other in the file."""

    data: NDArray[np.uint8]
    offsets: NDArray[Any]  # bytes
    dtype: np.dtype[Any]
    width: int  # bytes
    vocab_size: int
    hash: str
    sources: None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """A slice of neighbours is one view; anything else is gathered."""
        offsets = self.offsets[rows]
        if isinstance(rows, slice) and len(offsets) and adjacent(offsets, self.width):
            first = int(offsets[0])
            view: NDArray[Any] = self.data[first : first + len(offsets) * self.width].view(self.dtype)
            return view.reshape(len(offsets), -1)
        gathered = np.empty((len(offsets), self.width // self.dtype.itemsize), self.dtype)
        for target, offset in zip(gathered, offsets.tolist(), strict=True):
            target[:] = self.data[offset : offset + self.width].view(self.dtype)
        return gathered


def chunks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Parts of a mapped array that may be gigabytes, aligned, and where each begins."""
    for first in range(0, len(array), CHUNK):
        yield first, np.require(array[first : first + CHUNK], requirements="A")


def check_offsets(idx: Path, index: Index, size: int) -> None:
    """Every sequence must lie within the .bin."""
    for first, chunk in chunks(index.offsets):
        widths = index.lengths[first : first + len(chunk)].astype(np.int64) * index.dtype.itemsize
        for bad in np.flatnonzero((chunk < 0) | (chunk > size - widths))[:1]:
            raise ConfigError(
                "path",
                f"{str(idx)!r} does not fit its .bin: sequence {first + bad} takes {widths[bad]} bytes from byte "
                f"{chunk[bad]} on, of {size}",
            )


def top(index: Index, data: NDArray[np.uint8], path: Path) -> int:
    """The largest token of all sequences."""
    found, width = 0, index.dtype.itemsize
    for first, offsets in chunks(index.offsets):
        widths = index.lengths[first : first + len(offsets)].astype(np.int64) * width
        if (offsets[1:] == (offsets + widths)[:-1]).all():  # neighbours
            whole = data[int(offsets[0]) : int(offsets[-1] + widths[-1])].view(index.dtype)
            found = max(found, largest(whole, path))
            continue
        for offset, size in zip(offsets.tolist(), widths.tolist(), strict=True):
            found = max(found, largest(data[offset : offset + size].view(index.dtype), path))
    return found


def adjacent(offsets: NDArray[Any], width: int) -> bool:
    """Whether each sequence begins where the one before ends."""
    expected = int(offsets[0])
    for _, chunk in chunks(offsets):
        if int(chunk[0]) != expected or (np.diff(chunk) != width).any():
            return False
        expected = int(chunk[-1]) + width
    return True


def write(prefix: str | os.PathLike[str], samples: Iterable[ArrayLike], dtype: str = "uint16") -> None:
    """Make such a pair out of sequences of tokens, each its own document."""
    codes = {name: code for code, name in DTYPES.items()}
    if dtype not in codes:
        raise UserError(f"dtype {dtype!r} is none of {', '.join(codes)}")
    limits, kind = np.iinfo(dtype), np.dtype(dtype).newbyteorder("<")
    lengths = []
    with open(f"{os.fspath(prefix)}.bin", "wb") as stream:
        for number, sample in enumerate(samples):
            tokens = np.asarray(sample)
            if tokens.ndim != 1 or not tokens.size or tokens.dtype.kind not in "iu":
                raise UserError(f"sample {number} is {tokens.dtype}{list(tokens.shape)}, no sequence of integers")
            if tokens.min() < limits.min or tokens.max() > limits.max:
                raise UserError(f"sample {number} has tokens {tokens.min()} to {tokens.max()}, beyond {dtype}")
            stream.write(tokens.astype(kind).tobytes())
            lengths.append(len(tokens))
    sizes = np.array(lengths, "<i8")
    ends = np.cumsum(sizes) * kind.itemsize
    with open(f"{os.fspath(prefix)}.idx", "wb") as stream:
        stream.write(HEADER.pack(MAGIC, 1, codes[dtype], len(sizes), len(sizes) + 1))
        stream.write(sizes.astype("<i4").tobytes())
        stream.write((ends - sizes * kind.itemsize).astype("<i8").tobytes())
        stream.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())


@hookimpl
def register_data_sources(register: Register) -> None:
    register("megatron", Megatron)
