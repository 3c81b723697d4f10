"""Megatron's memory-mapped pairs of .bin and .idx, the format in which Pythia's training data is published.

The .idx, little-endian: `MMIDIDX\\0\\0`, version (u64), dtype (u8), numbers of sequences and of document entries
(u64 each), then length in tokens (i32) and offset in bytes (i64) of each sequence in the .bin, then the documents
(i64), which are of no use here.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.data import ArrayCorpus, Corpus, DataOptions
from halos.data.tokens import CHUNK, check_file, file_hash, largest
from halos.errors import ConfigError, UserError, from_here, require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
FLOATS = {6: "float32", 7: "float64"}


@dataclass(kw_only=True)
class Megatron(DataOptions):
    """A memory-mapped pair of `.bin` and `.idx`, as Pythia's data is published; each sequence is one sample.

    It holds `sequence_length + 1` tokens (Pythia's 2049).
    """

    path: Path  # without `.bin` and `.idx`
    vocab_size: Optional[int] = None  # null: the largest token plus one, for which the whole .bin is read

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.vocab_size is None or self.vocab_size >= 1,
            "vocab_size",
            self.vocab_size,
            "a positive number of tokens",
        )

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
            dtype, lengths, offsets = read_index(idx)
            self._check_lengths(idx, lengths)
            width = (self.sequence_length + 1) * dtype.itemsize
            check_offsets(idx, offsets, width, bin_.stat().st_size)
            data = np.asarray(np.memmap(bin_, np.uint8, "r"))
            digest = hashlib.sha256((file_hash(idx) + file_hash(bin_)).encode()).hexdigest()
        except OSError as error:
            raise ConfigError("path", f"{error.filename!r} cannot be read: {error.strerror}") from None
        if adjacent(offsets, width):
            first = int(offsets[0])
            samples = data[first : first + len(offsets) * width].view(dtype).reshape(len(offsets), -1)
            return ArrayCorpus(samples, self.vocab_size or largest(samples, Path(given)) + 1, digest)
        corpus = Scattered(data, offsets, dtype, width, self.vocab_size or 0, digest)
        if not corpus.vocab_size:
            rows = max(1, CHUNK // width)  # at a time
            parts = (corpus.read(slice(i, i + rows)) for i in range(0, len(corpus), rows))
            corpus.vocab_size = max(largest(part, Path(given)) for part in parts) + 1
        return corpus

    def _check_lengths(self, idx: Path, lengths: NDArray[Any]) -> None:
        """Nothing here cuts or pads, so that a sample is what its authors meant it to be."""
        expected = self.sequence_length + 1
        for first, chunk in chunks(lengths):
            for bad in np.flatnonzero(chunk != expected)[:1]:
                if chunk[bad] < 0:
                    raise ConfigError(
                        "path", f"{str(idx)!r} is damaged: sequence {first + bad} holds {chunk[bad]} tokens"
                    )
                raise ConfigError(
                    "path",
                    f"{str(idx)!r}: sequence {first + bad} holds {chunk[bad]} tokens; sequence_length "
                    f"{self.sequence_length} takes {expected}",
                )


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


def read_index(path: Path) -> tuple[np.dtype[Any], NDArray[Any], NDArray[Any]]:
    """Tokens' dtype, lengths (tokens) and offsets (bytes), mapped; the counts are checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise ConfigError("path", f"{str(path)!r} is damaged: {size} bytes, where the header alone has {HEADER.size}")
    magic, version, code, sequences, documents = HEADER.unpack(header)
    if magic != MAGIC:
        raise ConfigError("path", f"{str(path)!r} is no Megatron index: it begins with {magic!r}, not {MAGIC!r}")
    if version != 1:
        raise ConfigError("path", f"{str(path)!r} has version {version}; 1 can be read")
    if code not in DTYPES:
        what = f"{code} ({FLOATS[code]})" if code in FLOATS else code
        known = ", ".join(f"{number} ({name})" for number, name in DTYPES.items())
        raise ConfigError("path", f"{str(path)!r} has dtype {what}; tokens are one of {known}")
    expected = HEADER.size + 12 * sequences + 8 * documents
    if size != expected:
        raise ConfigError(
            "path",
            f"{str(path)!r} is damaged: {sequences} sequences and {documents} document entries make {expected} bytes, "
            f"it has {size}",
        )
    if not sequences:
        raise ConfigError("path", f"{str(path)!r} holds no sequence")
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    middle = HEADER.size + 4 * sequences
    lengths = content[HEADER.size : middle].view("<i4")
    offsets = content[middle : middle + 8 * sequences].view("<i8")
    return np.dtype(DTYPES[code]).newbyteorder("<"), lengths, offsets


def chunks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Parts of a mapped array that may be gigabytes, aligned, and where each begins."""
    for first in range(0, len(array), CHUNK):
        yield first, np.require(array[first : first + CHUNK], requirements="A")


def check_offsets(idx: Path, offsets: NDArray[Any], width: int, size: int) -> None:
    """Every sequence must lie within the .bin."""
    for first, chunk in chunks(offsets):
        for bad in np.flatnonzero((chunk < 0) | (chunk > size - width))[:1]:
            raise ConfigError(
                "path",
                f"{str(idx)!r} does not fit its .bin: sequence {first + bad} takes {width} bytes from byte "
                f"{chunk[bad]} on, of {size}",
            )


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
