"""Both formats of an index, written out by hand. What is wrong with one: test_megatron.py."""

import struct
from pathlib import Path

import pytest

from halos.data.megatron_index import read_index
from halos.errors import ConfigError

# Two sequences, of 3 and 1 tokens of four bytes (dtype 4), in documents 0 and 1.
TODAY = b"MMIDIDX\0\0" + struct.pack("<QBQQ 2i 2q 3q", 1, 4, 2, 3, *(3, 1), *(0, 12), *(0, 1, 2))
FAIRSEQ = b"TNTIDX\0\0" + struct.pack("<5Q 3q 3q 2q", 1, 4, 4, 2, 2, *(0, 1, 2), *(0, 3, 4), *(3, 1))
LEGACY = b"TNTIDX\0\0" + struct.pack("<6Q 3q 3q 2q 3q", 1, 4, 4, 2, 2, 3, *(0, 1, 2), *(0, 3, 4), *(3, 1), *(0, 1, 2))


@pytest.mark.parametrize("content", [TODAY, FAIRSEQ, LEGACY])
def test_all_formats_say_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.idx").write_bytes(content)
    index = read_index(tmp_path / "a.idx")
    assert (index.dtype, index.lengths.tolist(), index.offsets.tolist()) == ("<i4", [3, 1], [0, 12])


@pytest.mark.parametrize("content", [TODAY, FAIRSEQ, LEGACY])
def test_one_of_another_size_is_damaged(tmp_path: Path, content: bytes) -> None:
    for damaged in (content[:-1], content + b"\0", content[:-8], content + bytes(8)):
        (tmp_path / "a.idx").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"is damaged|one length each"):
            read_index(tmp_path / "a.idx")
