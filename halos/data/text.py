"""Text files as bytes: a corpus that every machine has, without a tokenizer or a download.

Documents are shuffled by the run's seed and joined; a sample is a window on the joined bytes. The
validation tail is the end of them: files that training has hardly seen.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Optional, Union

import numpy as np

from halos import seeds
from halos.data import ArrayCorpus, DataOptions, byte_level, memory
from halos.errors import ConfigError, from_here, require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 256  # bytes
SEPARATOR = 0  # after each document
STDLIB: Final = "stdlib"
NOT_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # what is no program a person reads


@dataclass(kw_only=True)
class Text(DataOptions):
    """Every file under a path (or several), read as bytes: a vocabulary of 256.

    Files are shuffled as documents by the seed, joined with a zero byte, and cut into samples. Hidden entries and
    `__pycache__` are left out.
    """

    # A file, a folder, or a list of them; `stdlib` is the source of Python's standard library on this machine, without
    # its tests and installed packages.
    path: Union[Literal["stdlib"], Path, list[Union[Literal["stdlib"], Path]]] = STDLIB
    pattern: Optional[str] = None  # of file names in folders; null: `*.py` for `stdlib`, `*` otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.path != [], "path", self.path, "a file, a folder, 'stdlib', or a list of these")
        require(self.pattern != "", "pattern", self.pattern, "a pattern of file names, such as '*.md'")

    def vocabulary(self) -> int:
        return VOCABULARY

    def tokenizer_json(self) -> str:
        return byte_level.tokenizer_json()

    def open(self, seed: int) -> ArrayCorpus:
        """Read every file, in memory of their size; a sample's source is where it begins.

        The source is the entry below the path (a package, a module), or, of several paths, the path.
        """
        documents = self._documents()
        order = list(range(len(documents)))
        if self.shuffle:
            order = seeds.generator(seed, "documents").permutation(len(documents)).tolist()
        size = sum(document.size + 1 for document in documents)
        memory.check("path", f"{self._given()} ({len(documents):,} files)", size)
        joined = np.full(size, SEPARATOR, np.uint8)
        self._check_size(len(joined), len(documents))
        starts = np.zeros(len(documents), np.int64)  # of each document, as they were found
        position = 0
        for number in order:
            starts[number] = position
            documents[number].read_into(joined[position : position + documents[number].size])
            position += documents[number].size + 1
        digest = hashlib.sha256()
        for document, start in zip(documents, starts.tolist(), strict=True):
            digest.update(os.fsencode(f"{document.name}\0{document.size}\n"))
            digest.update(joined[start : start + document.size].data)
        samples = np.lib.stride_tricks.sliding_window_view(joined, self.sequence_length + 1)[:: self.sequence_length]
        begins = np.arange(len(samples), dtype=np.int64) * self.sequence_length
        sources = np.array([document.source for document in documents], np.int32)[order]
        sources = sources[np.searchsorted(starts[order], begins, side="right") - 1]
        return ArrayCorpus(samples, VOCABULARY, digest.hexdigest(), sources)

    def _documents(self) -> list[Document]:
        """Return all documents, in an order that depends on names alone. Raises ConfigError if a path has none."""
        paths = self.path if isinstance(self.path, list) else [self.path]
        documents: list[Document] = []
        entries: dict[str, int] = {}
        for number, path in enumerate(paths):
            found = self._files(path)
            if not found:
                raise ConfigError(
                    "path", f"{from_here(path)!r} holds no readable text: no file matches, or all are empty"
                )
            for name, file, size in found:
                entry = name.split("/")[0]
                source = number if len(paths) > 1 else entries.setdefault(entry, len(entries))
                documents.append(Document(name, file, size, source))
        return documents

    def _files(self, path: Union[Literal["stdlib"], Path]) -> list[tuple[str, str, int]]:
        """Name (relative, with slashes), file and size of every file that is not empty."""
        root, skipped, pattern = from_here(path), {"__pycache__"}, self.pattern or "*"
        if path == STDLIB:
            root, skipped, pattern = sysconfig.get_path("stdlib"), skipped | NOT_STDLIB, self.pattern or "*.py"
        if not os.path.exists(root):
            raise ConfigError("path", f"{root!r} does not exist")
        if not os.path.isdir(root):
            names = [""]
        else:
            names = list(_below(root, skipped, pattern))
        found = []
        for name in names:
            file = os.path.join(root, name) if name else root
            try:
                status = os.stat(file)
            except FileNotFoundError:
                continue  # a link to nowhere
            except OSError as error:
                _unreadable(error)
            if stat.S_ISREG(status.st_mode) and status.st_size:  # reading a pipe would wait for ever
                found.append(((name or os.path.basename(root)).replace(os.sep, "/"), file, status.st_size))
        return sorted(found)

    def _given(self) -> str:
        """The path, or the paths, as messages have them."""
        paths = [from_here(path) for path in self.path] if isinstance(self.path, list) else from_here(self.path)
        return repr(paths)

    def _check_size(self, size: int, files: int) -> None:
        samples = max(1, self.validation_samples + (1 if self.hold_out else 0))
        needed = samples * self.sequence_length + 1
        if size < needed:
            train = ", one of them to train on" if self.hold_out and self.validation_samples else ""
            raise ConfigError(
                "path",
                f"{self._given()} gives {size} bytes ({files} files); {samples} samples of sequence_length "
                f"{self.sequence_length}{train} need {needed}",
            )


@dataclass(frozen=True)
class Document:
    """A file to read, and which source it counts as."""

    name: str
    file: str
    size: int
    source: int

    def read_into(self, target: NDArray[np.uint8]) -> None:
        """Fill `target` with the file's bytes."""
        try:
            with open(self.file, "rb") as stream:
                read = stream.readinto(target.data)
        except OSError as error:
            _unreadable(error)
        if read != self.size:
            raise ConfigError(
                "path", f"{self.file!r} had {self.size} bytes and has {read}: it changes while it is read"
            )


def _below(root: str, skipped: Collection[str], pattern: str) -> Iterator[str]:
    """The files in a folder and its folders (links to others are not followed), by relative name.

    Not `os.walk`, which recurses before Python 3.12: folders may be deeper than that goes.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
                inside = {entry.name for entry in visible if entry.is_dir(follow_symlinks=False)}
        except OSError as error:
            _unreadable(error)
        folders += [os.path.join(folder, name) for name in inside - set(skipped)]
        names = [entry.name for entry in visible if entry.name not in inside]
        yield from (os.path.join(folder, name) for name in fnmatch.filter(names, pattern))


def _unreadable(error: OSError) -> NoReturn:
    raise ConfigError("path", f"{error.filename!r} cannot be read: {error.strerror}") from None


@hookimpl
def register_data_sources(register: Register) -> None:
    register("text", Text)
