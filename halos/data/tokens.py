"""Token files: NumPy's .npy and .npz and raw .bin, as other tools' tokenizers write them."""

from __future__ import annotations

import hashlib
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from zipfile import is_zipfile

import numpy as np

from halos.data import MOST_TOKENS, ArrayCorpus, DataOptions, memory
from halos.data.arrays import HASHED_END, HASHED_WHOLE
from halos.errors import ConfigError, did_you_mean, from_here, in_a_line, require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = ("uint8", "uint16", "int32", "uint32")
CHUNK = 2**22  # read at a time


@dataclass(kw_only=True)
class Tokens(DataOptions):
    """A file of token numbers, memory-mapped (but an .npz, which is read whole).

    One dimension: a stream, of which sample i predicts tokens i·L + 1 to (i + 1)·L. Two: a sample per row.
    """

    path: Path  # a `.npy`, `.npz` or raw `.bin` file
    dtype: str = "uint16"  # of a raw `.bin`: `uint8`, `uint16`, `int32` or `uint32`
    key: Optional[str] = None  # of the array in an `.npz` that holds several
    vocab_size: Optional[int] = None  # null: the largest token plus one, for which the whole file is read

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.dtype in DTYPES, "dtype", self.dtype, "one of " + ", ".join(DTYPES))
        require(
            self.vocab_size is None or 1 <= self.vocab_size <= MOST_TOKENS,
            "vocab_size",
            self.vocab_size,
            f"a positive number of tokens, {MOST_TOKENS} at most",
        )

    def vocabulary(self) -> Optional[int]:
        return self.vocab_size

    def open(self, seed: int) -> ArrayCorpus:
        """Map the file; the samples are in its order, whatever the seed."""
        path = Path(from_here(self.path))
        array = self._array(path)
        if array.dtype.kind not in "iu":
            raise ConfigError("path", f"{str(path)!r} holds {array.dtype}, not integers")
        length = self.sequence_length + 1
        if array.ndim not in (1, 2):
            raise ConfigError("path", f"{str(path)!r} has shape {array.shape}, not one or two dimensions")
        if array.ndim == 2 and array.shape[1] != length:
            raise ConfigError(
                "path",
                f"{str(path)!r} has rows of {array.shape[1]} tokens; "
                f"sequence_length {self.sequence_length} takes {length}",
            )
        if array.ndim == 1 and len(array) < length:
            raise ConfigError(
                "path",
                f"{str(path)!r} holds {len(array)} tokens; one sample of sequence_length {self.sequence_length} "
                f"takes {length}",
            )
        if not array.size:
            raise ConfigError("path", f"{str(path)!r} is empty")
        vocab_size = self.vocab_size or largest(array, path) + 1
        windows = np.lib.stride_tricks.sliding_window_view
        samples = array if array.ndim == 2 else windows(array, length)[:: self.sequence_length]
        return ArrayCorpus(samples, vocab_size, file_hash(path))

    def _array(self, path: Path) -> NDArray[Any]:
        if path.suffix not in (".npy", ".npz", ".bin"):
            raise ConfigError("path", f"{str(path)!r} is no .npy, .npz or .bin file")
        check_file(path)
        if path.suffix == ".bin":
            return self._raw(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, of a header that is strange: said below, or harmless
                return self._member(path) if path.suffix == ".npz" else np.asarray(np.lib.format.open_memmap(path, "r"))
        except ConfigError:
            raise
        except Exception as error:  # whatever NumPy makes of a damaged file
            raise ConfigError("path", f"{str(path)!r} cannot be read: {in_a_line(error)}") from None

    def _raw(self, path: Path) -> NDArray[Any]:
        size, width = path.stat().st_size, np.dtype(self.dtype).itemsize
        if not size or size % width:
            raise ConfigError("path", f"{str(path)!r} has {size} bytes, no positive multiple of {self.dtype}'s {width}")
        try:
            return np.asarray(np.memmap(path, np.dtype(self.dtype).newbyteorder("<"), "r"))
        except OSError as error:
            raise ConfigError("path", f"{str(path)!r} cannot be read: {error.strerror}") from None

    def _member(self, path: Path) -> NDArray[Any]:
        if not is_zipfile(path):
            raise ConfigError("path", f"{str(path)!r} is damaged: no .npz archive")
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            key = names[0] if self.key is None and len(names) == 1 else self.key
            if key not in names:
                problem = "needed" if self.key is None else f"{self.key!r} is not there"
                hint = did_you_mean(self.key, names) if self.key else ""
                raise ConfigError("key", f"{problem}{hint}; {str(path)!r} holds {', '.join(names) or 'nothing'}")
            unpacked = sum(
                member.file_size for member in archive.zip.infolist() if member.filename in (key, f"{key}.npy")
            )
            memory.check("path", f"{key!r} in {str(path)!r}", unpacked)
            return np.asarray(archive[key])


def check_file(path: Path) -> None:
    """ConfigError unless there is a file; to open a pipe might take for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError("path", f"{str(path)!r} does not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigError("path", f"{str(path)!r} cannot be read: {getattr(error, 'strerror', error)}") from None
    if not stat.S_ISREG(mode):
        raise ConfigError("path", f"{str(path)!r} is no file")


def largest(array: NDArray[Any], path: Path) -> int:
    """The largest token, read in chunks; a negative one is an error."""
    rows = max(1, CHUNK // (array.shape[1] if array.ndim == 2 else 1))
    top = 0
    for first in range(0, len(array), rows):
        chunk = array[first : first + rows]
        if array.dtype.kind == "i" and (low := int(chunk.min())) < 0:
            raise ConfigError("path", f"{str(path)!r} holds the token {low}; tokens are not negative")
        top = max(top, int(chunk.max()))
    if top >= MOST_TOKENS:
        raise ConfigError("path", f"{str(path)!r} holds the token {top}; there can be {MOST_TOKENS} different ones")
    return top


def file_hash(path: Path) -> str:
    """SHA-256 of the content; of a file over 1 GiB, of its size, its first and its last 16 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size = path.stat().st_size
        if size > HASHED_WHOLE:
            digest.update(f"{size}\n".encode())
            digest.update(stream.read(HASHED_END))
            stream.seek(size - HASHED_END)
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@hookimpl
def register_data_sources(register: Register) -> None:
    register("tokens", Tokens)
