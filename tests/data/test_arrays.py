"""Arrays of numbers, and their hash."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from halos.data import arrays
from halos.data.arrays import check, digest, digest_of_parts, numbers, stacked
from halos.errors import UserError


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.ones(2, np.float16), "float16"),
        (torch.ones(2), "float32"),
        (torch.ones(2, requires_grad=True), "float32"),
        (torch.ones(2, dtype=torch.bfloat16), "float32"),
        ([1, 1], "int64"),
        ([True, True], "bool"),
    ],
)
def test_whatever_holds_numbers_becomes_an_array(value: Any, dtype: str) -> None:
    array = numbers(value)
    assert (array.tolist(), array.dtype) == ([1, 1], dtype)


def test_an_array_is_not_copied() -> None:
    array, tensor = np.ones(3), torch.ones(3)
    assert numbers(array) is array
    assert np.shares_memory(numbers(tensor), tensor.numpy())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["a"], "samples are <U1, not integers, floating-point numbers or truth values"),
        ({"image": 1}, "samples are dict, not integers"),
        (np.ones(2, complex), "samples are complex128, not integers"),
        ([[1], [1, 2]], "samples are no array of numbers: "),
    ],
)
def test_whatever_holds_none_is_named(value: Any, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        numbers(value)
    assert str(caught.value).startswith(problem)


def test_parts_hold_equally_many_samples() -> None:
    check([np.ones((3, 2)), np.ones(3)])
    with pytest.raises(UserError, match=r"^the parts of samples hold 3, 2 of them, not equally many$"):
        check([np.ones((3, 2)), np.ones(2)])
    for none in ([], [np.ones(())]):
        with pytest.raises(UserError, match=r"^samples are no array with a dimension for them$"):
            check(none)


def test_single_samples_are_stacked() -> None:
    assert stacked([1, 2]).tolist() == [1, 2]  # type: ignore[union-attr]
    images, labels = stacked([(torch.zeros(2, 2), 3), (np.ones((2, 2)), 4)])
    assert images.tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    assert labels.tolist() == [3, 4]
    with pytest.raises(UserError, match=r"^samples have shapes \[1\] and \[2\], not one$"):
        stacked([np.ones(2), np.ones(1)])
    with pytest.raises(UserError, match=r"^not every sample is a tuple of 2, as the first one is$"):
        stacked([(1, 2), 3])


def test_the_hash_is_of_type_shape_and_content(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(6, dtype="<i4").reshape(3, 2)
    expected = hashlib.sha256(b"<i4 (3, 2)\n" + array.tobytes()).hexdigest()
    assert digest(array) == digest((array,)) == digest(np.asfortranarray(array)) == expected
    monkeypatch.setattr(arrays, "CHUNK", 8)  # a row
    assert digest(array) == expected
    others = [array.astype(np.int64), array.reshape(2, 3), array + 1, (array, array), np.arange(6, dtype="<i4")]
    assert len({digest(other) for other in others} | {expected}) == 6


def test_of_what_is_large_both_ends_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "HASHED_WHOLE", 30)
    monkeypatch.setattr(arrays, "HASHED_END", 16)
    array = np.arange(10, dtype="<i4")
    ends = array[:4].tobytes() + array[-4:].tobytes()
    assert digest(array) == hashlib.sha256(b"<i4 (10,)\n" + ends).hexdigest()
    assert digest(array[:5]) == hashlib.sha256(b"<i4 (5,)\n" + array[:5].tobytes()).hexdigest()


def test_the_hash_of_what_comes_in_pieces_follows_their_order() -> None:
    one, two = np.ones(1), np.zeros(1)
    assert digest_of_parts([one, two]) == digest_of_parts(iter([one, two])) != digest_of_parts([two, one])
