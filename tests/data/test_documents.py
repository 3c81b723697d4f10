"""What documents a file holds."""

import bz2
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any, Optional

import pyarrow
import pyarrow.parquet
import pytest

from halos.data import documents as module
from halos.data.documents import documents, is_whole
from halos.data.files import File
from halos.errors import ConfigError


def file(folder: Path, name: str, content: bytes, named: bool = True) -> File:
    (folder / name).write_bytes(content)
    return File(name, str(folder / name), len(content), 0, named)


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(one: File, field: Optional[str] = "text") -> list[bytes]:
    return list(documents(one, field))


def zstd(content: bytes) -> bytes:
    compressed: bytes = pyarrow.Codec("zstd").compress(content, asbytes=True)
    return compressed


TWO = lines({"id": 1, "text": "one"}, {"id": 2, "text": "zwei ü"})
TEXTS = [b"one", "zwei ü".encode()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", TWO),
        ("a.JSONL", TWO),
        ("a.ndjson", TWO.replace(b"\n", b"\r\n\r\n")),
        ("a.json", TWO),
        ("a.json", b"\xef\xbb\xbf" + TWO.rstrip()),
        ("a.json", json.dumps([json.loads(line) for line in TWO.splitlines()]).encode()),
        ("a.json", json.dumps([json.loads(line) for line in TWO.splitlines()], indent=2).encode()),
        ("a.jsonl", TWO + lines({"text": ""}, {"text": None})),  # no documents
    ],
)
def test_every_object_of_json_is_a_document(tmp_path: Path, name: str, content: bytes) -> None:
    for named in (True, False):
        one = file(tmp_path, name, content, named)
        assert not is_whole(one, "text")
        assert read(one) == TEXTS


def test_a_single_object_is_a_document_if_the_file_was_given_and_settings_in_a_folder(tmp_path: Path) -> None:
    content = lines({"text": "one"})
    assert read(file(tmp_path, "a.json", content)) == [b"one"]
    assert is_whole(file(tmp_path, "a.json", content, named=False), "text")
    assert read(file(tmp_path, "a.jsonl", content, named=False)) == [b"one"]


@pytest.mark.parametrize("content", [b'{\n  "a": 1\n}\n', b"[1, 2]", b"[[1]]", b"true", b"no json"])
def test_json_without_records_is_a_text_in_a_folder_and_refused_if_given(tmp_path: Path, content: bytes) -> None:
    assert is_whole(file(tmp_path, "a.json", content, named=False), "text")
    with pytest.raises(
        ConfigError, match=r"a\.json' holds neither an object per line nor a list of objects; field: nu"
    ):
        read(file(tmp_path, "a.json", content))
    assert read(file(tmp_path, "a.json", content), None) == [content]


def test_without_a_field_json_is_read_as_it_is(tmp_path: Path) -> None:
    one = file(tmp_path, "a.jsonl", TWO)
    assert is_whole(one, None)
    assert read(file(tmp_path, "a.jsonl.gz", gzip.compress(TWO)), None) == [TWO]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", zstd),
        ("GZ", lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:])),  # one behind the other
        ("zst", lambda content: zstd(content[:9]) + zstd(content[9:])),
    ],
)
def test_what_is_compressed_is_what_was_compressed(tmp_path: Path, suffix: str, compress: Any) -> None:
    assert read(file(tmp_path, f"a.txt.{suffix}", compress(b"some text"))) == [b"some text"]
    assert read(file(tmp_path, f"a.jsonl.{suffix}", compress(TWO))) == TEXTS
    assert not is_whole(file(tmp_path, f"b.txt.{suffix}", compress(b"some text")), None)
    assert read(file(tmp_path, f"c.txt.{suffix}", compress(b""))) == []


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_what_is_damaged_is_said_in_one_line(tmp_path: Path, suffix: str) -> None:
    compress: Any = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[suffix]
    whole = compress(bytes(range(256)) * 99)
    for content in (whole[: len(whole) // 2], b"no such thing", whole[:9] + b"????" + whole[13:]):
        with pytest.raises(ConfigError) as caught:
            read(file(tmp_path, f"a.txt.{suffix}", content))
        assert str(caught.value).startswith(f"path: '{tmp_path}/a.txt.{suffix}' cannot be read: ")
        assert "\n" not in str(caught.value)


def table(columns: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.binary(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_every_row_of_parquet_is_a_document(tmp_path: Path, kind: Any) -> None:
    texts = pyarrow.array(["one", None, "", "zwei ü"], pyarrow.string()).cast(kind)
    content = table({"id": [1, 2, 3, 4], "text": texts}, row_group_size=2)
    assert read(file(tmp_path, "a.parquet", content)) == TEXTS
    assert read(file(tmp_path, "a.parquet.gz", gzip.compress(content))) == TEXTS


def test_a_field_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    place = f"'{tmp_path}/a"
    for name, content, where in [
        ("a.jsonl", TWO, f"{place}.jsonl', line 1, are"),
        ("a.json", b"[" + lines({"text": 1, "id": 2}) + b"]", f"{place}.json', object 1, are"),
        ("a.parquet", table({"id": [1], "text": ["a"]}), f"{place}.parquet' are"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read(file(tmp_path, name, content), "txt")
        names = "text, id" if name == "a.json" else "id, text"
        assert str(caught.value) == (f"field: 'txt' is not there (did you mean 'text'?); the fields of {where} {names}")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", lines({"text": "a"}, {"b": 1}), "field: 'text' is not there; the fields of {a}, line 2, are b"),
        ("a.jsonl", lines({"text": "a"}, {}), "field: 'text' is not there; the fields of {a}, line 2, are none"),
        ("a.jsonl", lines({"text": "a"}, [1]), "path: {a}, line 2: no object with fields, but list"),
        ("a.jsonl", lines({"text": ["a"]}), "field: 'text' of {a}, line 1, is no text, but list"),
        ("a.jsonl", lines({"text": 5}), "field: 'text' of {a}, line 1, is no text, but int"),
        ("a.jsonl", b'{"text": "a"}\n{"text', "path: {a}, line 2: no JSON: Unterminated string starting at"),
        ("a.jsonl", b"\xff\xfe\n", "path: {a}, line 1: no JSON: "),
        ("a.jsonl", b'{"text":' + b"[" * 99999, "path: {a}, line 1: no JSON: "),
        ("a.json", b'[{"text": "a"}', "path: {a}, all of it: no JSON: Expecting ',' delimiter"),
        ("a.parquet", b"no such thing", "path: {a} cannot be read: "),
        ("a.parquet", table({"text": [1]}), "field: 'text' of {a} is no text, but int64"),
        ("a.parquet", table({"text": [["a"]]}), "field: 'text' of {a} is no text, but list"),
    ],
)
def test_what_has_no_text_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(file(tmp_path, name, content))
    assert str(caught.value).startswith(problem.format(a=repr(str(tmp_path / name))))
    assert "\n" not in str(caught.value)


def test_parquet_needs_a_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^field: null, but .* has columns; which of them holds the text"):
        read(file(tmp_path, "a.parquet", table({"text": ["a"]})), None)


def test_half_a_pair_of_surrogates_is_no_text(tmp_path: Path) -> None:
    assert read(file(tmp_path, "a.jsonl", b'{"text": "a\\ud800b"}')) == [b"a?b"]


def test_lines_may_be_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    assert read(file(tmp_path, "a.jsonl", TWO)) == TEXTS
    assert read(file(tmp_path, "a.txt.gz", gzip.compress(b"some more text"))) == [b"some more text"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_a_small_file_that_becomes_a_large_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("halos.data.memory.available", lambda: 2**22)
    monkeypatch.setattr(module, "CHUNK", 2**16)
    one = file(tmp_path, name, gzip.compress(bytes(2**24)))
    assert one.size < 2**15
    with pytest.raises(ConfigError, match=r"^path: .*a.*gz'.* takes 5\.0 MiB of memory, 4\.0 MiB are free$"):
        read(one)


@pytest.mark.parametrize(
    ("name", "library"),
    [("a.parquet", "pyarrow")] + ([("a.txt.zst", "pyarrow")] if sys.version_info < (3, 14) else []),
)
def test_a_library_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError) as caught:
        read(file(tmp_path, name, b"something"))
    install = "run: pip install halos-simulator[text]"
    assert str(caught.value) == f"path: '{tmp_path}/{name}': {library} is not installed; {install}"
