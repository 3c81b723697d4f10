"""The documents in a file: the whole of it, or a field of each line or row; compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any, Optional, cast

from halos.data import memory
from halos.data.files import EXTRA, File
from halos.errors import ConfigError, did_you_mean, in_a_line

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LINES = (".jsonl", ".ndjson")
CHUNK = 2**22  # bytes read at a time
OFTEN = 16  # chunks read between two looks at the memory there is


def is_whole(file: File, field: Optional[str]) -> bool:
    """Whether the file's very bytes are its one document."""
    return not file.path.lower().endswith(COMPRESSED) and _kind(file, field) == ""


def documents(file: File, field: Optional[str]) -> Iterator[bytes]:
    """Yield the documents of a file that are not empty, in order; what comes from records is UTF-8.

    A `.jsonl` or `.ndjson`, and a `.json` of that content or of a list of objects, has one in `field` of each object,
    a `.parquet` in that column of each row; with `field` None the former are text like any other, as is a `.json` in a
    folder that holds something else. Raises ConfigError if the file cannot be read, is damaged, or has no such field
    (the message lists those there are).
    """
    kind = _kind(file, field)
    with _reading(file), _open(file) as stream:
        if kind == ".parquet":
            yield from _rows(file, stream, field)
        elif kind:
            assert field is not None, "of text, every kind is that of a file itself"
            for where, record in _lines(file, stream) if kind == ".jsonl" else _list(file, stream):
                text = _text(file, where, record, field)
                if text:
                    yield text
        elif whole := b"".join(_chunks(file, stream)):
            yield whole


def _kind(file: File, field: Optional[str]) -> str:
    """`.jsonl`, `.json` (a list of objects), `.parquet`, or, of text, nothing."""
    name = file.path.lower()
    suffix = next((each for each in COMPRESSED if name.endswith(each)), "")
    name = name.removesuffix(suffix)
    if name.endswith(".parquet"):
        return ".parquet"
    if field is None or not name.endswith((*LINES, ".json")):
        return ""
    if name.endswith(LINES):
        return ".jsonl"
    kind = _kind_of_json(file)
    if not kind and file.named:
        problem = "holds neither an object per line nor a list of objects; field: null takes it as it is"
        raise ConfigError("path", f"{file.path!r} {problem}")
    return kind


def _kind_of_json(file: File) -> str:
    """Of a `.json`, which may also be something that is no collection of records, such as a program's settings."""
    with _reading(file), _open(file) as stream:
        lines = (line.removeprefix(b"\xef\xbb\xbf").strip() for line in _split(file, stream))
        first, second = islice(chain(filter(None, lines), (b"", b"")), 2)
    if first.startswith(b"["):
        return ".json" if (first[1:].lstrip() or second).startswith(b"{") else ""
    if not second and not file.named:
        return ""  # a single object
    try:
        return ".jsonl" if isinstance(json.loads(first), dict) else ""
    except (ValueError, RecursionError):
        return ""


@contextmanager
def _reading(file: File) -> Iterator[None]:
    """Whatever gzip, lzma or Arrow make of a damaged file, as one line."""
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except OSError as error:
        raise ConfigError("path", f"{file.path!r} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise ConfigError("path", f"{file.path!r} cannot be read: {in_a_line(error)}") from None


def _open(file: File) -> IO[bytes]:
    name = file.path.lower()
    if name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(file.path, "rb"))
    if name.endswith(".bz2"):
        return bz2.open(file.path, "rb")
    if name.endswith(".xz"):
        return lzma.open(file.path, "rb")
    return _zstd(file) if name.endswith(".zst") else open(file.path, "rb")


def _zstd(file: File) -> IO[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.open(file.path, "rb")
    try:  # not the library zstandard, which takes half a file for a whole one
        import pyarrow
    except ImportError:
        raise ConfigError("path", f"{file.path!r}: pyarrow is not installed; {EXTRA}") from None
    stream: IO[bytes] = pyarrow.CompressedInputStream(pyarrow.OSFile(file.path), "zstd")
    return stream


def _chunks(file: File, stream: IO[bytes]) -> Iterator[bytes]:
    """All of it, by someone who keeps it; a small file can be a very large one, compressed."""
    count = 0
    while chunk := stream.read(CHUNK):
        count += 1
        if count % OFTEN == 0:
            memory.check("path", f"{file.path!r}, of which {count * CHUNK / 2**20:,.0f} MiB are read,", count * CHUNK)
        yield chunk


def _split(file: File, stream: IO[bytes]) -> Iterator[bytes]:
    """The lines; not by the stream's own `readline`, for which a line of any length is one."""
    pieces: list[bytes] = []
    while chunk := stream.read(CHUNK):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for other in others:
            yield b"".join(pieces)
            pieces = [other]
        if len(pieces) % OFTEN == 0:
            memory.check("path", f"a line of {file.path!r}", len(pieces) * CHUNK)
    if pieces:
        yield b"".join(pieces)


def _lines(file: File, stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_split(file, stream), 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield f"line {number}", _json(file, f"line {number}", line)


def _list(file: File, stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    records = _json(file, "all of it", b"".join(_chunks(file, stream)))
    yield from ((f"object {number}", record) for number, record in enumerate(records, 1))


def _json(file: File, where: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError("path", f"{file.path!r}, {where}: no JSON: {error}") from None


def _text(file: File, where: str, record: Any, field: str) -> bytes:
    """A record's document; empty if that is null."""
    if not isinstance(record, dict):
        raise ConfigError("path", f"{file.path!r}, {where}: no object with fields, but {type(record).__name__}")
    if field not in record:
        raise _no_field(file, where, field, list(record))
    value = record[field]
    if not isinstance(value, (str, type(None))):
        raise ConfigError("field", f"{field!r} of {file.path!r}, {where}, is no text, but {type(value).__name__}")
    return (value or "").encode("utf-8", "replace")  # JSON can spell half of a pair of surrogates, which is no text


def _rows(file: File, stream: IO[bytes], field: Optional[str]) -> Iterator[bytes]:
    if field is None:
        raise ConfigError("field", f"null, but {file.path!r} has columns; which of them holds the text?")
    try:
        from pyarrow import parquet, types
    except ImportError:
        raise ConfigError("path", f"{file.path!r}: pyarrow is not installed; {EXTRA}") from None
    if file.path.lower().endswith(COMPRESSED):
        stream = io.BytesIO(b"".join(_chunks(file, stream)))
    table = parquet.ParquetFile(stream)
    if field not in table.schema_arrow.names:
        raise _no_field(file, "", field, table.schema_arrow.names)
    kind = table.schema_arrow.field(field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not any(fits(kind) for name, fits in vars(types).items() if name in TEXTS):
        raise ConfigError("field", f"{field!r} of {file.path!r} is no text, but {kind}")
    for batch in table.iter_batches(batch_size=1024, columns=[field]):
        for value in batch.column(0).to_pylist():
            if value:
                yield value.encode() if isinstance(value, str) else value


TEXTS = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_null")


def _no_field(file: File, where: str, field: str, known: list[str]) -> ConfigError:
    place = f"{file.path!r}, {where}," if where else repr(file.path)
    names = ", ".join(known) or "none"
    return ConfigError(
        "field", f"{field!r} is not there{did_you_mean(field, known)}; the fields of {place} are {names}"
    )
