"""The index of Megatron's pairs of .bin and .idx: where each sequence of tokens lies; both formats that there are.

Little-endian, both. The one of today: `MMIDIDX\\0\\0`, version (u64), dtype (u8), numbers of sequences and of document
entries (u64 each), then length in tokens (i32) and offset in bytes (i64) of each sequence in the .bin, then the
documents (i64), which are of no use here. Its predecessor: `TNTIDX\\0\\0`, version, dtype, bytes per token, number n of
sequences and s of their lengths, of document entries (u64 each; fairseq's has none of these), then the first length of
each sequence and one past the last (n + 1), likewise its first token (n + 1), the lengths (s), and the documents, i64.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from halos.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC, LEGACY = b"MMIDIDX\x00\x00", b"TNTIDX\x00\x00"
HEADER, LEGACY_HEADER = struct.Struct("<9sQBQQ"), struct.Struct("<8sQQQQQ")
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    8: "uint16",
    9: "uint32",
    10: "uint64",
}
FLOATS = {6: "float32", 7: "float64"}


class Index(NamedTuple):
    """What an .idx says."""

    dtype: np.dtype[Any]  # of a token
    lengths: NDArray[Any]  # of each sequence, in tokens
    offsets: NDArray[Any]  # likewise, in bytes


def read_index(path: Path) -> Index:
    """Read an index, mapped where that can be; its counts are checked against the file's size.

    Raises ConfigError if it is damaged, or none.
    """
    with path.open("rb") as stream:
        header = stream.read(LEGACY_HEADER.size + 8)
    if header.startswith(LEGACY):
        return _legacy(path, header)
    size = path.stat().st_size
    if len(header) < HEADER.size:
        raise ConfigError("path", f"{str(path)!r} is damaged: {size} bytes, where the header alone has {HEADER.size}")
    magic, version, code, sequences, documents = HEADER.unpack(header[: HEADER.size])
    if magic != MAGIC:
        raise ConfigError("path", f"{str(path)!r} is no Megatron index: it begins with {magic!r}, not {MAGIC!r}")
    dtype = _dtype(path, version, code)
    expected = HEADER.size + 12 * sequences + 8 * documents
    if size != expected:
        raise ConfigError(
            "path",
            f"{str(path)!r} is damaged: {sequences} sequences and {documents} document entries make {expected} bytes, "
            f"it has {size}",
        )
    _check_any(path, sequences)
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    middle = HEADER.size + 4 * sequences
    lengths = content[HEADER.size : middle].view("<i4")
    return Index(dtype, lengths, content[middle : middle + 8 * sequences].view("<i8"))


def _legacy(path: Path, header: bytes) -> Index:
    size = path.stat().st_size
    if len(header) < LEGACY_HEADER.size:
        raise ConfigError(
            "path", f"{str(path)!r} is damaged: {size} bytes, where the header alone has {LEGACY_HEADER.size}"
        )
    _, version, code, width, sequences, lengths = LEGACY_HEADER.unpack(header[: LEGACY_HEADER.size])
    dtype = _dtype(path, version, code)
    if width != dtype.itemsize:
        raise ConfigError(
            "path", f"{str(path)!r} is damaged: {width} bytes per token, where {dtype.name} has {dtype.itemsize}"
        )
    start, expected = LEGACY_HEADER.size, LEGACY_HEADER.size + 8 * (2 * (sequences + 1) + lengths)
    if size != expected and len(header) == start + 8:  # not fairseq's: a number more, and as many document entries
        (documents,) = struct.unpack("<Q", header[start:])
        start, expected = start + 8, expected + 8 * (1 + documents)
    if size != expected:
        raise ConfigError(
            "path", f"{str(path)!r} is damaged: what its header says makes {expected} bytes, it has {size}"
        )
    _check_any(path, sequences)
    numbers = np.asarray(np.memmap(path, "<i8", "r", start, ((size - start) // 8,)))
    firsts, begins = numbers[: sequences + 1], numbers[sequences + 1 : 2 * sequences + 2]
    if lengths != sequences or not np.array_equal(firsts, np.arange(sequences + 1)):
        raise ConfigError("path", f"{str(path)!r}: its sequences have not one length each, as those of tokens do")
    begins = begins[:-1]
    bad = np.flatnonzero((begins < 0) | (begins > 2**59))[:1]
    if len(bad):
        raise ConfigError("path", f"{str(path)!r} is damaged: sequence {bad[0]} begins at token {begins[bad[0]]}")
    return Index(dtype, numbers[2 * sequences + 2 : 3 * sequences + 2], begins * width)


def _dtype(path: Path, version: int, code: int) -> np.dtype[Any]:
    if version != 1:
        raise ConfigError("path", f"{str(path)!r} has version {version}; 1 can be read")
    if code not in DTYPES:
        what = f"{code} ({FLOATS[code]})" if code in FLOATS else code
        known = ", ".join(f"{number} ({name})" for number, name in DTYPES.items())
        raise ConfigError("path", f"{str(path)!r} has dtype {what}; tokens are one of {known}")
    return np.dtype(DTYPES[code]).newbyteorder("<")


def _check_any(path: Path, sequences: int) -> None:
    if not sequences:
        raise ConfigError("path", f"{str(path)!r} holds no sequence")
