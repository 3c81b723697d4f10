"""Tokenised text that is kept between runs: a file per corpus, named after what its tokens follow from.

A file is written beside its name and renamed, and begins with the digest of all that follows, so that a run finds all
of it or nothing, whoever writes at the same time and wherever a writer was killed. Not to be able to keep one is a
warning: the next run tokenises again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Optional

import numpy as np

from halos.errors import from_here

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("halos.data")

CHUNK = 2**22  # bytes
LEFT_OVER = 3600.0  # seconds after which an unfinished file is that of a writer that is no more


def folder(given: Optional[Path]) -> Path:
    """Return where files are kept: `given`, or `halos` in the user's folder for what may be made again."""
    if given is not None:
        return given
    home = os.path.expanduser("~")
    home = tempfile.gettempdir() if home == "~" else home  # nobody's
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "halos")


def load(place: Path, key: str, count: int) -> Optional[list[NDArray[Any]]]:
    """Return the `count` arrays kept under `key`, mapped; None if there are none, or they are damaged."""
    path = place / f"{key}.tokens"
    try:
        with path.open("rb") as stream:
            said, digest = stream.read(hashlib.sha256().digest_size), hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            if digest.digest() != said:
                log.warning("%s is damaged; the text is tokenised again", from_here(path))
                return None
            stream.seek(len(said))
            return [_mapped(path, stream) for _ in range(count)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        log.warning("%s cannot be read: %s; the text is tokenised again", from_here(path), reason)
        return None


def keep(place: Path, key: str, arrays: Sequence[NDArray[Any]]) -> None:
    """Keep one-dimensional arrays under `key`; a warning if that cannot be done."""
    unfinished = place / f"{key}.{os.getpid()}-{time.monotonic_ns()}.unfinished"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _clear(place)
        with unfinished.open("x+b") as stream:
            stream.write(bytes(hashlib.sha256().digest_size))
            for array in arrays:
                np.lib.format.write_array(stream, array, allow_pickle=False)
            stream.flush()
            stream.seek(hashlib.sha256().digest_size)
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            stream.seek(0)
            stream.write(digest.digest())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, place / f"{key}.tokens")
    except OSError as error:
        where, reason = from_here(place), error.strerror or error
        log.warning("the tokenised text cannot be kept in %s: %s; the next run tokenises again", where, reason)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _mapped(path: Path, stream: BinaryIO) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    assert version == (1, 0), "as `keep` writes them"
    (size,), _, dtype = np.lib.format.read_array_header_1_0(stream)
    start = stream.tell()
    stream.seek(size * dtype.itemsize, os.SEEK_CUR)
    return np.asarray(np.memmap(path, dtype, "r", start, (size,))) if size else np.empty(0, dtype)


def _clear(place: Path) -> None:
    """Remove what killed writers left."""
    for path in place.glob("*.unfinished"):
        try:
            if time.time() - path.stat().st_mtime > LEFT_OVER:
                path.unlink()
        except OSError:
            continue  # its writer has just finished it, or somebody else removed it
