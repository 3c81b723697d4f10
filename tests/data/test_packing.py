"""Documents packed into samples. In files, and against windows cut by hand: test_megatron.py."""

import numpy as np
import pytest

from halos.data.packing import Packed, Stream, divided
from halos.errors import ConfigError

LENGTHS = np.array([3, 2, 4, 0, 2], np.int32)


def test_whole_documents_are_held_back_just_as_many_as_it_takes() -> None:
    def split(validation: int, epochs: int = 1) -> list[list[int]]:
        return [order.tolist() for order in divided(LENGTHS, validation, epochs, None, "it")]

    assert split(0) == [[0, 1, 2, 4], []]
    assert split(2) == [[0, 1, 2], [4]]
    assert split(3) == split(6) == [[0, 1], [2, 4]]
    assert split(7) == [[0], [1, 2, 4]]
    assert split(11) == [[], [0, 1, 2, 4]]
    assert split(3, epochs=3) == [[0, 1, 0, 1, 0, 1], [2, 4]]
    with pytest.raises(ConfigError, match=r"^path: it holds 11 tokens; the samples to validate on take 12$"):
        split(12)


def test_another_number_of_epochs_moves_no_document_to_the_other_side() -> None:
    lengths = np.arange(50)
    one, other = divided(lengths, 100, 1, 5, "it"), divided(lengths, 100, 4, 5, "it")
    assert one[1].tolist() == other[1].tolist()
    assert one[0].tolist() == other[0][: len(one[0])].tolist()


def test_orders_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halos.data.memory.available", lambda: 100)
    with pytest.raises(ConfigError, match=r"^path: the order of it's 5 documents, 1 times, takes .* 0\.0 MiB are free"):
        divided(LENGTHS, 0, 1, None, "it")


def test_a_sample_may_hold_many_documents_or_a_piece_of_one() -> None:
    data = np.arange(12, dtype="<u2")
    streams = tuple(
        Stream.of(np.array(order), np.array([1, 1, 1, 9]), np.array([0, 2, 4, 6])) for order in ([2, 0, 1, 3], [3])
    )
    assert [stream.samples(3) for stream in streams] == [3, 2]
    packed = Packed(data.view(np.uint8), data.dtype, 3, (streams[0], streams[1]), (3, 1), 12, "0")
    assert packed.read(slice(0, 9)).tolist() == [[2, 0, 1, 3], [3, 4, 5, 6], [6, 7, 8, 9], [3, 4, 5, 6]]
    assert packed.read(slice(1, 1)).shape == (0, 4)
