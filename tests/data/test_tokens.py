"""Files of token numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.data import tokens as module
from halos.data.tokens import Tokens, file_hash
from halos.errors import ConfigError, UserError

STREAM = np.arange(10)


def source(path: Path, **options: Any) -> Tokens:
    return Tokens(path=path, **({"sequence_length": 3, "validation_samples": 0} | options))


def save(folder: Path, name: str, array: Any) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **(array if isinstance(array, dict) else {"tokens": array}))
    else:
        path.write_bytes(array if isinstance(array, bytes) else array.tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "array", "options"),
    [
        ("a.npy", STREAM, {}),
        ("a.npy", STREAM.astype(">i4"), {}),
        ("a.npz", STREAM, {}),
        ("a.npz", {"one": STREAM, "two": STREAM + 1}, {"key": "one"}),
        ("a.bin", STREAM.astype("<u2"), {}),
        ("a.bin", STREAM.astype("<u1"), {"dtype": "uint8"}),
        ("a.bin", STREAM.astype("<i4"), {"dtype": "int32"}),
        ("a.bin", STREAM.astype("<u4"), {"dtype": "uint32"}),
    ],
)
def test_a_stream_is_cut_so_that_each_token_is_predicted_once(
    tmp_path: Path, name: str, array: Any, options: dict[str, Any]
) -> None:
    opened = source(save(tmp_path, name, array), **options).open(1)
    assert opened.read(slice(0, 3)).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert opened.read(np.array([2, 0])).tolist() == [[6, 7, 8, 9], [0, 1, 2, 3]]
    assert len(opened) == 3
    assert opened.vocab_size == 10
    assert opened.sources is None


def test_two_dimensions_are_a_sample_per_row(tmp_path: Path) -> None:
    opened = source(save(tmp_path, "a.npy", np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))).open(1)
    assert opened.read(slice(0, 2)).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert opened.vocab_size == 9


def test_the_file_is_mapped_and_a_slice_is_a_view(tmp_path: Path) -> None:
    for name in ("a.npy", "a.bin"):
        path = save(tmp_path, name, STREAM.astype("<u2"))
        part = source(path).open(1).read(slice(1, 3))
        with path.open("r+b") as stream:
            stream.seek(-2, 2)
            stream.write(b"\x63\x00")
        assert part.tolist() == [[3, 4, 5, 6], [6, 7, 8, 99]]  # memory is the file


def test_a_given_vocabulary_is_known_before_opening_and_saves_reading_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, "a.npy", STREAM)
    assert source(path).vocabulary() is None
    assert source(path, vocab_size=50304).vocabulary() == 50304 == source(path, vocab_size=50304).open(1).vocab_size


def test_the_largest_token_is_found_in_any_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    for place in range(10):
        stream = np.zeros(10, np.uint16)
        stream[place] = 99
        assert source(save(tmp_path, "a.npy", stream)).open(1).vocab_size == 100
    assert source(save(tmp_path, "b.npy", np.arange(40).reshape(10, 4))).open(1).vocab_size == 40


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    one = source(save(tmp_path, "a.npy", STREAM)).open(1).hash
    assert source(save(tmp_path, "b.npy", STREAM)).open(2).hash == one
    assert source(save(tmp_path, "a.npy", STREAM[::-1])).open(1).hash != one


def test_of_a_very_large_file_size_and_both_ends_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASHED_WHOLE", 10)
    monkeypatch.setattr(module, "HASHED_END", 3)

    def digest(content: bytes) -> str:
        return file_hash(save(tmp_path, "a.bin", content))

    one = digest(b"abc-----xyz")
    assert digest(b"abc--+--xyz") == one  # the middle of eleven bytes is not read
    assert one not in {digest(b"abd-----xyz"), digest(b"abc-----xya"), digest(b"abc------xyz")}
    assert digest(b"abc---+xyz") != digest(b"abc----xyz")  # ten are


@pytest.mark.parametrize(
    ("name", "array", "options", "problem"),
    [
        ("a.txt", b"text", {}, "path: '{path}' is no .npy, .npz or .bin file"),
        ("a.npy", STREAM / 2, {}, "path: '{path}' holds float64, not integers"),
        ("a.npy", STREAM > 2, {}, "path: '{path}' holds bool, not integers"),
        ("a.npy", STREAM[:3], {}, "path: '{path}' holds 3 tokens; one sample of sequence_length 3 takes 4"),
        ("a.npy", STREAM.reshape(2, 5), {}, "path: '{path}' has rows of 5 tokens; sequence_length 3 takes 4"),
        ("a.npy", np.zeros((1, 1, 4), int), {}, "path: '{path}' has shape (1, 1, 4), not one or two dimensions"),
        ("a.npy", np.zeros((0, 4), int), {}, "path: '{path}' is empty"),
        ("a.npy", STREAM - 2, {}, "path: '{path}' holds the token -2; tokens are not negative"),
        ("a.npy", np.array([{}], object), {}, "path: '{path}' cannot be read: "),
        ("a.npz", {"one": STREAM, "two": STREAM}, {}, "key: needed; '{path}' holds one, two"),
        (
            "a.npz",
            {"one": STREAM, "two": STREAM},
            {"key": "tow"},
            "key: 'tow' is not there (did you mean 'two'?); '{path}' holds one, two",
        ),
        ("a.npz", {}, {}, "key: needed; '{path}' holds nothing"),
        ("a.npz", {"a": np.array([{}], object)}, {}, "path: '{path}' cannot be read: "),
        ("a.bin", b"abc", {}, "path: '{path}' has 3 bytes, no positive multiple of uint16's 2"),
        ("a.bin", b"", {}, "path: '{path}' has 0 bytes, no positive multiple of uint16's 2"),
    ],
)
def test_what_is_no_tokens_is_said_in_one_line(
    tmp_path: Path, name: str, array: Any, options: dict[str, Any], problem: str
) -> None:
    path = save(tmp_path, name, array)
    with pytest.raises(ConfigError) as caught:
        source(path, **options).open(1)
    assert str(caught.value).startswith(problem.format(path=path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist$"):
        source(tmp_path / "a.npy").open(1)
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(ConfigError, match=r"is no file$"):
        source(tmp_path / "b.npy").open(1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"path": Path("a.bin"), "dtype": "float16"}, "dtype: 'float16' is not one of uint8, uint16, int32, uint32"),
        (
            {"path": Path("a.bin"), "vocab_size": 0},
            "vocab_size: 0 is not a positive number of tokens, 2147483648 at most",
        ),
        ({"path": Path("a.bin"), "sequence_length": 0}, "sequence_length: 0 is not a positive number of tokens"),
    ],
)
def test_options_are_checked_before_anything_is_opened(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Tokens(**options)
    assert str(caught.value) == problem


@given(
    name=st.sampled_from(["a.npy", "a.npz"]),
    keep=st.integers(0, 400),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_file_opens_or_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, keep: int, flips: list[tuple[int, int]]
) -> None:
    path = save(tmp_path_factory.mktemp("damaged"), name, STREAM)
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content[:keep])
    try:
        opened = source(path).open(1)
    except UserError as error:
        problem = str(error)
    else:
        assert opened.read(slice(0, 1)).shape == (1, 4)
        return
    assert "\n" not in problem
