"""Text files as bytes, a corpus that every machine has without a tokenizer or a download; or as a tokenizer's tokens.

Documents are shuffled by the seed and joined; a sample is a window on what is joined. The validation
tail is the end of it: documents that training has hardly seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, Union

import numpy as np

from halos import seeds
from halos.data import ArrayCorpus, DataOptions, arrays, byte_level, cache, memory
from halos.data.documents import documents, is_whole
from halos.data.files import STDLIB, File, find, unreadable
from halos.data.tokenizing import Tiktoken, Tokenizer, load
from halos.errors import ConfigError, from_here, require
from halos.hooks import Register, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 256  # bytes
SEPARATOR = 0  # after each document of bytes
BATCH = 2**20  # bytes of documents given to a tokenizer at a time
FORMAT = "1"  # of what is kept between runs; another one is another key
CHUNK = 2**22  # bytes hashed at a time
OFTEN = 2**26  # bytes read between two looks at the memory there is


@dataclass(kw_only=True)
class Text(DataOptions):
    """Every file under a path (or several), read as bytes, a vocabulary of 256, or by a tokenizer.

    A file is a document; of a `.jsonl`, `.ndjson`, `.json` (an object per line, or a list of them) or `.parquet` every
    line, object or row is one. `.gz`, `.bz2`, `.xz` and `.zst` are decompressed. Documents are shuffled by the seed,
    joined with a zero byte (the tokenizer's end of text), and cut into samples. Hidden entries and `__pycache__` are
    left out.
    """

    # A file, a folder, or a list of them; `stdlib` is the source of Python's standard library on this machine, without
    # its tests and installed packages.
    path: Union[Literal["stdlib"], Path, list[Union[Literal["stdlib"], Path]]] = STDLIB
    pattern: Optional[str] = None  # of file names in folders; null: `*.py` for `stdlib`, `*` otherwise
    # Which field of an object, or column, holds the text; null: `.json` and its like are text as they are.
    field: Optional[str] = "text"
    # A local tokenizer.json of Hugging Face's (or the folder that it is in), or the name of one of tiktoken's; null:
    # bytes. Either needs a library: `pip install halos-simulator[text]`.
    tokenizer: Optional[Union[Tiktoken, Path]] = None
    cache: Optional[Path] = None  # folder in which tokenised text is kept for the next run; null: ~/.cache/halos

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.path != [], "path", self.path, "a file, a folder, 'stdlib', or a list of these")
        require(self.pattern != "", "pattern", self.pattern, "a pattern of file names, such as '*.md'")
        require(self.field != "", "field", self.field, "the name of a field, such as text")

    def vocabulary(self) -> int:
        """Return 256, or the tokenizer's number of tokens, for which that is loaded."""
        return VOCABULARY if self.tokenizer is None else load(self.tokenizer).vocab_size

    def tokenizer_json(self) -> Optional[str]:
        """Return bytes as a tokenizer, or the local one; None for tiktoken's, which have no such form."""
        return byte_level.tokenizer_json() if self.tokenizer is None else load(self.tokenizer).json

    def open(self, seed: int) -> ArrayCorpus:
        """Read every file, in memory of their size; a sample's source is where it begins.

        The source is the entry below the path (a package, a module), or, of several paths, the path.
        """
        files = find(self.path if isinstance(self.path, list) else [self.path], self.pattern)
        if self.tokenizer is None:
            return self._of_bytes(files, seed)
        return self._of_tokens(files, load(self.tokenizer), seed)

    def _of_bytes(self, files: list[File], seed: int) -> ArrayCorpus:
        found = list(self._documents(files))
        sizes = np.array([document.size for document in found], np.int64)
        memory.check("path", f"{self._given()} ({len(files):,} files)", int(sizes.sum()) + len(found))
        joined, starts = np.full(int(sizes.sum()) + len(found), SEPARATOR, np.uint8), np.zeros(len(found), np.int64)
        self._check_size(len(joined), "bytes", len(files))
        order, position = self._order(len(found), seed), 0
        for number in order.tolist():
            starts[number] = position
            found[number].read_into(joined[position : position + found[number].size])
            position += found[number].size + 1
        digest = hashlib.sha256()
        for document, start in zip(found, starts.tolist(), strict=True):
            name = "" if document.file.named else document.name  # what a file itself is called changes nothing
            digest.update(os.fsencode(f"{name}\0{document.size}\n"))
            digest.update(joined[start : start + document.size].data)
        sources = np.array([document.file.source for document in found], np.int32)[order]
        return self._cut(joined, starts[order], sources, VOCABULARY, digest.hexdigest(), 1.0, "bytes")

    def _of_tokens(self, files: list[File], tokenizer: Tokenizer, seed: int) -> ArrayCorpus:
        stamps = [_stamp(file) for file in files]
        key, place = self._key(files, tokenizer), cache.folder(self.cache)
        kept = cache.load(place, key, count=4)
        if kept is None:
            kept = self._tokenise(files, tokenizer)
            for file, stamp in zip(files, stamps):
                if _stamp(file) != stamp:
                    raise ConfigError("path", f"{file.path!r} changes while it is read")
            cache.keep(place, key, kept)
        tokens, sizes, per_file, read = kept
        memory.check("path", f"{self._given()} ({len(tokens):,} tokens)", tokens.nbytes)
        self._check_size(len(tokens), "tokens", len(files))
        order = self._order(len(sizes), seed)
        begins = np.cumsum(sizes) - sizes
        joined, starts = np.empty_like(tokens), np.cumsum(sizes[order]) - sizes[order]
        for start, number in zip(starts.tolist(), order.tolist(), strict=True):
            begin, size = int(begins[number]), int(sizes[number])
            joined[start : start + size] = tokens[begin : begin + size]
        sources = np.repeat(np.array([file.source for file in files], np.int32), per_file)[order]
        per_token = float(read[0]) / len(tokens)
        digest = arrays.digest((tokens, sizes))  # not the key: another version of a library may give the same tokens
        return self._cut(joined, starts, sources, tokenizer.vocab_size, digest, per_token, tokenizer.identity)

    def _cut(
        self,
        joined: NDArray[Any],
        starts: NDArray[np.int64],
        sources: NDArray[np.int32],
        vocab_size: int,
        digest: str,
        bytes_per_token: float,
        tokenizer: str,
    ) -> ArrayCorpus:
        """Windows on what is joined; `starts` and `sources` are those of its documents, one after another."""
        samples = np.lib.stride_tricks.sliding_window_view(joined, self.sequence_length + 1)[:: self.sequence_length]
        begins = np.arange(len(samples), dtype=np.int64) * self.sequence_length
        sources = sources[np.searchsorted(starts, begins, side="right") - 1]
        return ArrayCorpus(samples, vocab_size, digest, sources, bytes_per_token, tokenizer)

    def _order(self, count: int, seed: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(count)
        return seeds.generator(seed, "documents").permutation(count)

    def _documents(self, files: list[File]) -> Iterator[Document]:
        """All documents: files that are read later, straight to their place, and what it takes reading to know."""
        held = checked = 0
        for file in files:
            if is_whole(file, self.field):
                yield Document(file, file.name, file.size, None)
                continue
            for number, content in enumerate(documents(file, self.field)):
                yield Document(file, f"{file.name}#{number}", len(content), content)
                held += len(content)
                if held - checked > OFTEN:  # it will take as much again
                    checked = held
                    memory.check("path", f"{self._given()}, of which {held / 2**20:,.0f} MiB are read,", held)

    def _key(self, files: list[File], tokenizer: Tokenizer) -> str:
        """A hash of all that the tokens follow from."""
        digest = hashlib.sha256(f"{FORMAT}\n{tokenizer.identity}\n{self.field!r}\n".encode())
        for file in files:
            digest.update(os.fsencode(f"{file.name}\0{file.size}\0{file.named}\n"))
            try:
                with open(file.path, "rb") as stream:
                    while chunk := stream.read(CHUNK):
                        digest.update(chunk)
            except OSError as error:
                unreadable(error)
        return digest.hexdigest()

    def _tokenise(self, files: list[File], tokenizer: Tokenizer) -> list[NDArray[Any]]:
        """All tokens, each document's number of them, each file's number of documents, and the bytes of them all."""
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        end = [] if tokenizer.end is None else [tokenizer.end]
        pieces: list[NDArray[Any]] = []
        sizes: list[int] = []
        per_file, size = [0] * len(files), 0
        for batch in self._batches(files):
            encoded = tokenizer.encode([_text(files[number], content) for number, content in batch])
            for (number, content), found in zip(batch, encoded, strict=True):
                sizes.append(len(found) + len(end))
                per_file[number] += 1
                size += len(content)
            pieces.append(np.array([token for found in encoded for token in (*found, *end)], dtype))
            held = dtype().itemsize * sum(map(len, pieces))
            memory.check("path", f"{self._given()}, of which {size / 2**20:,.0f} MiB are tokenised,", held)
        tokens = np.concatenate(pieces) if pieces else np.empty(0, dtype)
        return [tokens, np.array(sizes, np.int64), np.array(per_file, np.int64), np.array([size], np.int64)]

    def _batches(self, files: list[File]) -> Iterator[list[tuple[int, bytes]]]:
        """All documents, each with the number of its file, some at a time."""
        batch, size = [], 0
        for number, file in enumerate(files):
            for content in documents(file, self.field):
                batch.append((number, content))
                size += len(content)
                if size >= BATCH:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    def _given(self) -> str:
        """The path, or the paths, as messages have them."""
        paths = [from_here(path) for path in self.path] if isinstance(self.path, list) else from_here(self.path)
        return repr(paths)

    def _check_size(self, size: int, unit: str, files: int) -> None:
        samples = max(1, self.validation_samples + (1 if self.hold_out else 0))
        needed = samples * self.sequence_length + 1
        if size < needed:
            train = ", one of them to train on" if self.hold_out and self.validation_samples else ""
            raise ConfigError(
                "path",
                f"{self._given()} gives {size} {unit} ({files} files); {samples} samples of sequence_length "
                f"{self.sequence_length}{train} need {needed}",
            )


class Document(NamedTuple):
    """A document of so many bytes; `content` None: the whole of its file, not read yet."""

    file: File
    name: str
    size: int
    content: Optional[bytes]

    def read_into(self, target: NDArray[np.uint8]) -> None:
        """Fill `target` with the document's bytes."""
        if self.content is not None:
            target[:] = np.frombuffer(self.content, np.uint8)
            return
        try:
            with open(self.file.path, "rb") as stream:
                read = stream.readinto(target.data)
        except OSError as error:
            unreadable(error)
        if read != self.size:
            raise ConfigError(
                "path", f"{self.file.path!r} had {self.size} bytes and has {read}: it changes while it is read"
            )


def _stamp(file: File) -> tuple[int, int]:
    """What changes with a file's content."""
    try:
        status = os.stat(file.path)
    except OSError as error:
        unreadable(error)
    return status.st_size, status.st_mtime_ns


def _text(file: File, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{file.path!r} is no UTF-8, which a tokenizer needs: byte {error.start} of a document"
        raise ConfigError("path", problem) from None


@hookimpl
def register_data_sources(register: Register) -> None:
    register("text", Text)
