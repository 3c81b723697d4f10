"""Megatron's pairs of .bin and .idx."""

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.data import ArrayCorpus
from halos.data import megatron as module
from halos.data.megatron import Megatron, Scattered, adjacent, write
from halos.errors import ConfigError, UserError

SAMPLES = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]  # 8 bytes each as uint16
IDX = 34 + 3 * 4 + 3 * 8 + 4 * 8  # header, lengths, offsets, documents


def source(folder: Path, **options: Any) -> Megatron:
    return Megatron(path=folder / "a", **({"sequence_length": 3, "validation_samples": 0} | options))


def index(
    magic: bytes = b"MMIDIDX\0\0",
    version: int = 1,
    code: int = 8,
    lengths: tuple[int, ...] = (4, 4, 4),
    offsets: tuple[int, ...] = (0, 8, 16),
    documents: tuple[int, ...] = (0, 1, 2, 3),
    counts: tuple[int, int] = (3, 4),
) -> bytes:
    """An .idx written by hand, every part of which can be wrong."""
    return (
        magic
        + struct.pack("<QBQQ", version, code, *counts)
        + struct.pack(f"<{len(lengths)}i", *lengths)
        + struct.pack(f"<{len(offsets)}q", *offsets)
        + struct.pack(f"<{len(documents)}q", *documents)
    )


def pair(folder: Path, idx: bytes) -> Megatron:
    (folder / "a.bin").write_bytes(np.arange(1, 13, dtype="<u2").tobytes())
    (folder / "a.idx").write_bytes(idx)
    return source(folder)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    opened = source(tmp_path).open(1)
    assert opened.read(slice(0, 3)).tolist() == SAMPLES
    assert opened.read(np.array([2, 0])).tolist() == [SAMPLES[2], SAMPLES[0]]
    assert len(opened) == 3
    assert opened.vocab_size == 13
    assert opened.sources is None


def test_the_index_is_byte_for_byte_what_the_format_says(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    assert (tmp_path / "a.idx").read_bytes() == index()
    assert len(index()) == IDX == 102
    assert (tmp_path / "a.bin").read_bytes() == np.arange(1, 13, dtype="<u2").tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint16"])
def test_every_integer_type_is_read(tmp_path: Path, dtype: str) -> None:
    write(tmp_path / "a", SAMPLES, dtype)
    opened = source(tmp_path).open(1)
    assert opened.read(slice(0, 3)).tolist() == SAMPLES
    assert opened.read(slice(0, 1)).dtype == dtype


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_the_path_of_either_file_will_do(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "a", SAMPLES)
    path = tmp_path / f"a{suffix}"
    assert len(Megatron(path=path, sequence_length=3, validation_samples=0).open(1)) == 3


def test_neighbours_are_one_view_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    opened = source(tmp_path).open(1)
    assert isinstance(opened, ArrayCorpus)
    part = opened.read(slice(1, 3))
    assert np.shares_memory(part, opened.samples)
    assert part.strides == (8, 2)


def test_sequences_may_lie_anywhere_in_the_file(tmp_path: Path) -> None:
    opened = pair(tmp_path, index(offsets=(16, 0, 8))).open(1)
    assert isinstance(opened, Scattered)
    assert opened.vocab_size == 13
    assert opened.read(slice(0, 3)).tolist() == [SAMPLES[2], SAMPLES[0], SAMPLES[1]]
    assert opened.read(np.array([1, 0])).tolist() == [SAMPLES[0], SAMPLES[2]]
    assert opened.read(slice(2, 2)).shape == (0, 4)
    assert np.shares_memory(opened.read(slice(1, 3)), opened.data)  # these two are neighbours
    assert not np.shares_memory(opened.read(slice(0, 2)), opened.data)


def test_neighbours_are_recognised_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    offsets = np.arange(10) * 8
    assert adjacent(offsets, 8)
    for place in range(1, 10):
        moved = offsets.copy()
        moved[place] += 1
        assert not adjacent(moved, 8)


def test_a_given_vocabulary_saves_reading_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    assert source(tmp_path).vocabulary() is None
    assert source(tmp_path, vocab_size=50304).vocabulary() == 50304
    assert source(tmp_path, vocab_size=50304).open(1).vocab_size == 50304


def test_the_hash_is_of_both_files(tmp_path: Path) -> None:
    one = pair(tmp_path, index()).open(1).hash
    assert pair(tmp_path, index()).open(2).hash == one
    assert pair(tmp_path, index(offsets=(16, 0, 8))).open(1).hash != one
    write(tmp_path / "a", [*SAMPLES[:2], [0, 0, 0, 0]])
    assert source(tmp_path).open(1).hash != one


@pytest.mark.parametrize(
    ("idx", "problem"),
    [
        (b"", "{idx} is damaged: 0 bytes, where the header alone has 34"),
        (index()[:33], "{idx} is damaged: 33 bytes, where the header alone has 34"),
        (
            index(magic=b"MMIDIDY\0\0"),
            "{idx} is no Megatron index: it begins with b'MMIDIDY\\x00\\x00', not b'MMID",
        ),
        (index(version=2), "{idx} has version 2; 1 can be read"),
        (index(code=6), "{idx} has dtype 6 (float32); tokens are one of 1 (uint8), 2 (int8), 3 (int16), 4 (int32), 5"),
        (index(code=77), "{idx} has dtype 77; tokens are one of"),
        (index()[:-1], "{idx} is damaged: 3 sequences and 4 document entries make 102 bytes, it has 101"),
        (index() + b"x", "{idx} is damaged: 3 sequences and 4 document entries make 102 bytes, it has 103"),
        (index(counts=(3, 2**63)), "{idx} is damaged: 3 sequences and 9223372036854775808 document entries make"),
        (index(counts=(2**64 - 1, 4)), "{idx} is damaged: 18446744073709551615 sequences and 4 document entries make"),
        (index(counts=(0, 0), lengths=(), offsets=(), documents=()), "{idx} holds no sequence"),
        (index(lengths=(4, -4, 4)), "{idx} is damaged: sequence 1 holds -4 tokens"),
        (
            index(lengths=(4, 4, 2049)),
            "{idx} does not fit its .bin: sequence 2 takes 4098 bytes from byte 16 on, of 24",
        ),
        (index(offsets=(0, -8, 16)), "{idx} does not fit its .bin: sequence 1 takes 8 bytes from byte -8 on, of 24"),
        (index(offsets=(0, 8, 17)), "{idx} does not fit its .bin: sequence 2 takes 8 bytes from byte 17 on, of 24"),
        (index(offsets=(0, 2**63 - 1, 16)), "{idx} does not fit its .bin: sequence 1 takes 8 bytes from byte 92233720"),
    ],
)
def test_a_damaged_index_is_said_in_one_line(tmp_path: Path, idx: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pair(tmp_path, idx).open(1)
    name = repr(str(tmp_path / "a.idx"))
    assert str(caught.value).startswith("path: " + problem.format(idx=name))
    assert "\n" not in str(caught.value)


def test_a_damaged_index_allocates_nothing(tmp_path: Path) -> None:
    damaged = pair(tmp_path, index(counts=(2**40, 2**40)))
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            damaged.open(1)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("missing", ["a.bin", "a.idx"])
def test_a_missing_half_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path / "a", SAMPLES)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        source(tmp_path).open(1)
    assert str(caught.value) == f"path: {str(tmp_path / missing)!r} does not exist"


def test_an_empty_bin_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"does not fit its \.bin: sequence 0 takes 8 bytes from byte 0 on, of 0"):
        source(tmp_path).open(1)


def test_negative_tokens_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, -2, 3, 4]], "int32")
    with pytest.raises(ConfigError, match="holds the token -2; tokens are not negative"):
        source(tmp_path).open(1)


@pytest.mark.parametrize(
    ("samples", "dtype", "problem"),
    [
        (SAMPLES, "float32", "dtype 'float32' is none of uint8"),
        ([[1, 70000]], "uint16", "sample 0 has tokens 1 to 70000, beyond uint16"),
        ([[1], [-1]], "uint16", "sample 1 has tokens -1 to -1, beyond uint16"),
        ([[0.5]], "uint16", "sample 0 is float64[1], no sequence of integers"),
        ([[]], "uint16", "sample 0 is float64[0], no sequence of integers"),
    ],
)
def test_writing_refuses_what_is_no_tokens(tmp_path: Path, samples: Any, dtype: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        write(tmp_path / "a", samples, dtype)
    assert str(caught.value).startswith(problem)


# Documents of any length

DOCUMENTS = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [], [10, 11]]


def today(documents: list[list[int]], code: int, kind: str) -> tuple[bytes, bytes]:
    """An .idx and a .bin as Megatron writes them: an independent writer."""
    width, sizes = struct.calcsize(kind), [len(document) for document in documents]
    offsets = [width * sum(sizes[:i]) for i in range(len(sizes))]
    idx = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sizes), len(sizes) + 1)
    idx += struct.pack(f"<{len(sizes)}i{2 * len(sizes) + 1}q", *sizes, *offsets, *range(len(sizes) + 1))
    return idx, b"".join(struct.pack(f"<{len(document)}{kind}", *document) for document in documents)


def legacy(documents: list[list[int]], code: int, kind: str, fairseq: bool = False) -> tuple[bytes, bytes]:
    """The same as its predecessor was written, with or without the documents that Megatron added."""
    width, sizes = struct.calcsize(kind), [len(document) for document in documents]
    count = len(sizes)
    numbers = [*range(count + 1), *(sum(sizes[:i]) for i in range(count + 1)), *sizes]
    numbers += [] if fairseq else range(count + 1)
    idx = b"TNTIDX\0\0" + struct.pack("<QQQQQ", 1, code, width, count, count)
    idx += b"" if fairseq else struct.pack("<Q", count + 1)
    return idx + struct.pack(f"<{len(numbers)}q", *numbers), today(documents, code, kind)[1]


def put(folder: Path, files: tuple[bytes, bytes], **options: Any) -> Megatron:
    (folder / "a.idx").write_bytes(files[0])
    (folder / "a.bin").write_bytes(files[1])
    return source(folder, **({"sequence_length": 2, "shuffle": False} | options))


KINDS = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H", 9: "I", 10: "Q"}


@pytest.mark.parametrize("code", KINDS)
@pytest.mark.parametrize("write", [today, legacy, lambda *given: legacy(*given, fairseq=True)])
def test_documents_are_joined_and_cut_into_windows_that_overlap_by_one(tmp_path: Path, write: Any, code: int) -> None:
    opened = put(tmp_path, write(DOCUMENTS, code, KINDS[code])).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 8, 9], [9, 10, 11]]
    assert opened.read(np.array([4, 0])).tolist() == [[9, 10, 11], [1, 2, 3]]
    assert (len(opened), opened.vocab_size, opened.read(slice(0, 1)).dtype.str[1:]) == (
        5,
        12,
        np.dtype(KINDS[code]).str[1:],
    )


def test_one_token_less_is_one_sample_less(tmp_path: Path) -> None:
    opened = put(tmp_path, today([[1, 2, 3, 4, 5, 6]], 8, "H")).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 3], [3, 4, 5]]


def test_documents_to_validate_on_are_apart(tmp_path: Path) -> None:
    """Three tokens take the last two documents that hold any; of the five left, two samples are made."""
    opened = put(tmp_path, today(DOCUMENTS, 8, "H"), validation_samples=1).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 3], [3, 4, 5], [6, 7, 8]]
    one = put(tmp_path, today([*DOCUMENTS, [12, 13, 14]], 8, "H"), validation_samples=1).open(1)
    assert one.read(slice(4, 9)).tolist() == [[9, 10, 11], [12, 13, 14]]  # just as many as it takes


def test_all_documents_may_be_there_to_validate_on_if_they_are_trained_on_too(tmp_path: Path) -> None:
    opened = put(tmp_path, today(DOCUMENTS, 8, "H"), validation_samples=5, hold_out=False).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 8, 9], [9, 10, 11]]


def test_several_epochs_are_packed_one_after_another(tmp_path: Path) -> None:
    opened = put(tmp_path, today(DOCUMENTS, 8, "H"), validation_samples=1, epochs=2).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 3], [3, 4, 5], [5, 1, 2], [2, 3, 4], [6, 7, 8]]


def streams(opened: Any, validation: int) -> tuple[list[int], list[int]]:
    """The tokens of the windows put together again: those to train on, and the others."""
    rows = opened.read(slice(0, len(opened))).tolist()
    parts = rows[: len(rows) - validation], rows[len(rows) - validation :]
    one, other = ([part[0][0], *(token for row in part for token in row[1:])] for part in parts)
    return one, other


def test_seeds_shuffle_documents_and_choose_those_to_validate_on(tmp_path: Path) -> None:
    documents = [[10 * i + j for j in range(1 + i % 7)] for i in range(90)]
    seen: dict[int, tuple[list[int], list[int]]] = {}
    for seed in (1, 2):
        options: dict[str, Any] = {"shuffle": True, "validation_samples": 20, "epochs": 2}
        opened = put(tmp_path, today(documents, 8, "H"), **options).open(seed)
        seen[seed] = streams(opened, 20)
        assert streams(put(tmp_path, today(documents, 8, "H"), **options).open(seed), 20) == seen[seed]
        train, validation = seen[seed]
        assert not {token // 10 for token in train} & {token // 10 for token in validation}
        order = [token // 10 for token in train if token % 10 == 0]  # each begins with that
        together = [token for document in order for token in documents[document]]
        assert together[: len(train)] == train
        each = len(set(order))
        first, second = order[:each], order[each:]
        assert sorted(first) == sorted(set(order)) != first  # all of them once, and not as they lie
        assert len(set(second)) == len(second) and second != first[: len(second)]
        held = [document for document in range(90) if document not in first]
        assert (
            sum(len(documents[document]) for document in held) - 7
            < 41
            <= sum(map(len, map(documents.__getitem__, held)))
        )
    assert seen[1][0] != seen[2][0] and set(seen[1][1]) != set(seen[2][1])


def test_sequences_of_the_samples_length_are_samples_unless_they_are_to_be_packed(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLES)
    assert source(tmp_path, shuffle=False).open(1).read(slice(0, 9)).tolist() == SAMPLES
    packed = source(tmp_path, shuffle=False, pack=True).open(1)
    assert packed.read(slice(0, 9)).tolist() == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 10]]
    assert packed.hash == source(tmp_path).open(1).hash


def test_packing_may_be_forbidden(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"sequence 1 holds 2 tokens; sequence_length 2 takes 3 \(pack: true joins seq"
    ):
        put(tmp_path, today(DOCUMENTS, 8, "H"), pack=False).open(1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sequence_length": 11}, "holds 11 tokens, in 4 documents; one sample of sequence_length 11 takes 12"),
        ({"validation_samples": 6}, "holds 11 tokens; the samples to validate on take 13"),
        (
            {"validation_samples": 4},
            "holds 3 tokens after the 3 documents to validate on, in 1 documents; "
            "one sample of sequence_length 3 takes 4",
        ),
    ],
)
def test_too_few_tokens_are_said(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    options = {"sequence_length": 3 if "after" in problem else 2} | options
    if options["sequence_length"] == 3:
        options["validation_samples"] = 2  # seven tokens, for which three documents are needed
    with pytest.raises(ConfigError) as caught:
        put(tmp_path, today(DOCUMENTS, 8, "H"), **options).open(1)
    assert str(caught.value) == f"path: {str(tmp_path / 'a')!r} {problem}"


def test_documents_may_lie_anywhere_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.arange(1, 13, dtype="<u2").tobytes())
    (tmp_path / "a.idx").write_bytes(index(lengths=(2, 3, 4), offsets=(20, 1 * 2, 4 * 2)))
    opened = source(tmp_path, sequence_length=2, shuffle=False).open(1)
    assert opened.read(slice(0, 9)).tolist() == [[11, 12, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8]]
    assert opened.vocab_size == 13


OLD, OLD_BIN = legacy(SAMPLES, 8, "H")


def old(place: int, kind: str, value: int) -> bytes:
    return OLD[:place] + struct.pack(f"<{kind}", value) + OLD[place + struct.calcsize(kind) :]


@pytest.mark.parametrize(
    ("idx", "problem"),
    [
        (OLD[:40], "{idx} is damaged: 40 bytes, where the header alone has 48"),
        (old(8, "Q", 2), "{idx} has version 2; 1 can be read"),
        (old(16, "Q", 7), "{idx} has dtype 7 (float64); tokens are one of 1 (uint8)"),
        (old(24, "Q", 4), "{idx} is damaged: 4 bytes per token, where uint16 has 2"),
        (OLD[:-1], "{idx} is damaged: what its header says makes 176 bytes, it has 175"),
        (old(32, "Q", 2**63), "{idx} is damaged: what its header says makes"),
        (old(48, "Q", 2**63), "{idx} is damaged: what its header says makes"),
        (OLD[:32] + bytes(40), "{idx} holds no sequence"),
        (old(56 + 8, "q", 0), "{idx}: its sequences have not one length each, as those of tokens do"),
        (old(56 + 8 * 5, "q", -1), "{idx} is damaged: sequence 1 begins at token -1"),
        (old(56 + 8 * 5, "q", 9), "{idx} does not fit its .bin: sequence 1 takes 8 bytes from byte 18 on, of 24"),
        (old(56 + 8 * 8, "q", -4), "{idx} is damaged: sequence 0 holds -4 tokens"),
    ],
)
def test_a_damaged_index_of_the_older_format_is_said_in_one_line(tmp_path: Path, idx: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        put(tmp_path, (idx, OLD_BIN), sequence_length=3).open(1)
    assert str(caught.value).startswith("path: " + problem.format(idx=repr(str(tmp_path / "a.idx"))))
    assert "\n" not in str(caught.value)


def test_the_largest_token_is_one_that_can_be_numbered(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="holds the token 18446744073709551615; there can be 2147483648 different ones"
    ):
        put(tmp_path, today([[1, 2, 2**64 - 1]], 10, "Q")).open(1)


def reads_or_refuses(damaged: Megatron) -> None:
    """Any damage is a UserError in one line, or was none: then every sample can be read."""
    try:
        opened = damaged.open(1)
    except UserError as error:
        problem = str(error)
    else:
        shape = (len(opened), damaged.sequence_length + 1)
        assert opened.read(slice(0, len(opened))).shape == opened.read(np.arange(len(opened))[::-1]).shape == shape
        return
    assert "\n" not in problem


@given(keep=st.integers(0, IDX), flips=st.lists(st.tuples(st.integers(0, IDX - 1), st.integers(0, 255)), max_size=3))
def test_a_truncated_or_corrupted_index_opens_or_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, keep: int, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(index())
    for place, value in flips:
        content[place] = value
    folder = tmp_path_factory.mktemp("damaged")
    reads_or_refuses(pair(folder, bytes(content)))
    reads_or_refuses(pair(folder, bytes(content[:keep])))
    content = bytearray(OLD)
    for place, value in flips:
        content[place] = value
    reads_or_refuses(pair(folder, bytes(content)))


@given(
    code=st.integers(0, 9),
    lengths=st.tuples(*[st.sampled_from([4, 4, 4, 0, -1, 2**31 - 1])] * 3),
    offsets=st.tuples(*[st.one_of(st.integers(0, 24), st.integers(-(2**63), 2**63 - 1))] * 3),
    counts=st.tuples(*[st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))] * 2),
)
def test_a_well_formed_index_of_nonsense_opens_or_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory,
    code: int,
    lengths: tuple[int, ...],
    offsets: tuple[int, ...],
    counts: tuple[int, int],
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    reads_or_refuses(pair(folder, index(code=code, lengths=lengths, offsets=offsets, counts=counts)))
    reads_or_refuses(pair(folder, index(code=code, lengths=lengths, offsets=offsets)))
    reads_or_refuses(pair(folder, index(code=8, offsets=offsets)))
