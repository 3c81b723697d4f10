"""SparseLoCo: payloads packed to bits, an independent compressor, error feedback by hand, identities with DiLoCo."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
import torch
from halos_sparseloco import MeanOfSenders, SparseChunks
from numpy.typing import NDArray

from halos import Exchange, Layout, Params, Payload
from halos.testing import Recording, Wire, record, tiny, two_workers
from halos.testing.conformance import AggregatorConformance, CodecConformance

PLUGIN = ["halos_sparseloco"]
SHAPES = {
    "matrix": (130, 96),  # tiles of 26 × 48
    "prime": (67, 5),  # of 1 × 5
    "square": (8, 8),
    "deep": (6, 4, 33),  # a matrix of 6 × 132, tiles of 6 × 44
    "vector": (192,),  # pieces of 64
    "odd": (67,),  # pieces of one number
    "scalar": (),
}
Array = NDArray[np.float32]
Tensors = dict[str, Array]


def normal(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Params:
    layout = Layout(shapes)
    return Params(layout, torch.randn(layout.size, generator=torch.Generator().manual_seed(seed)))


def arrays(params: Params) -> Tensors:
    return {name: tensor.numpy() for name, tensor in params.tensors().items()}


class TestConformance(CodecConformance):
    plugins = PLUGIN
    sections = ({"name": "sparse_chunks", "two_bit": False, "tile": 16},)


class TestAggregatorConformance(AggregatorConformance):
    plugins = PLUGIN


# The compressor once more, number by number


def largest_divisor(size: int) -> int:
    return max(number for number in range(1, 65) if size % number == 0)


def chunks_of(array: Array) -> list[list[int]]:
    """For every chunk, the positions of its numbers in the flattened tensor, in the tile's own order."""
    rows, columns = (array.shape[0], array.size // array.shape[0]) if array.ndim >= 2 else (1, array.size)
    a, b = largest_divisor(rows), largest_divisor(columns)
    found = []
    for top in range(0, rows, a):
        for left in range(0, columns, b):
            found.append([i * columns + j for i in range(top, top + a) for j in range(left, left + b)])
    return found


def kept_of(array: Array, k: int) -> list[list[int]]:
    """Of every chunk, which of its numbers are kept, by their place in the chunk, in order."""
    flat, kept = array.reshape(-1), []
    for chunk in chunks_of(array):
        count = max(1, round(k * len(chunk) / 4096))
        by_size = sorted(range(len(chunk)), key=lambda place: (-abs(float(flat[chunk[place]])), place))
        kept.append(sorted(by_size[:count]))
    return kept


def codes_of(values: list[float]) -> tuple[list[int], list[float]]:
    """Two-bit codes of a tensor's kept values, and what each code stands for."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    deviation = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 1.0
    step = 6 * (deviation or 1.0) / 4
    codes = [min(3, max(0, round((value - mean) / step + 2))) for value in values]
    levels = []
    for code in range(4):
        members = [value for value, own in zip(values, codes) if own == code]
        levels.append(math.fsum(members) / len(members) if members else 0.0)
    return codes, [mean, *levels]


def packed(array: Array, k: int) -> bytes:
    """Mean and levels in fp32, then the place of each kept number and its code, the first one lowest."""
    flat = [float(value) for value in array.reshape(-1)]
    chunks, kept = chunks_of(array), kept_of(array, k)
    codes, levels = codes_of([flat[chunk[place]] for chunk, places in zip(chunks, kept) for place in places])
    bits = math.ceil(math.log2(len(chunks[0])))
    places = [place for each in kept for place in each]
    word = 0
    for index, (place, code) in enumerate(zip(places, codes, strict=True)):
        word |= (place | code << bits) << index * (bits + 2)
    return struct.pack("<5f", *levels) + word.to_bytes(math.ceil(len(places) * (bits + 2) / 8), "little")


def unpacked(data: bytes, like: Array, k: int) -> Array:
    """The tensor, of which nothing but the shape is known beside the data."""
    chunks = chunks_of(like)
    count, bits = max(1, round(k * len(chunks[0]) / 4096)), math.ceil(math.log2(len(chunks[0])))
    _, *levels = struct.unpack_from("<5f", data)
    word, result = int.from_bytes(data[20:], "little"), np.zeros(like.size, np.float32)
    for chunk in chunks:
        for _ in range(count):
            result[chunk[word & (2**bits - 1)]] = levels[word >> bits & 3]
            word >>= bits + 2
    return result.reshape(like.shape)


@pytest.mark.parametrize("k", [1, 64, 128, 1000, 4096])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_arrives_is_unpacked_from_as_many_bytes_as_are_counted(k: int, seed: int) -> None:
    payload, codec = normal(SHAPES, seed), SparseChunks(k=k)
    given, arrived = arrays(payload), arrays(codec.roundtrip(payload))
    total = 0
    for name, array in given.items():
        data = packed(array, k)
        total += len(data)
        np.testing.assert_allclose(arrived[name], unpacked(data, array, k), rtol=1e-6, atol=0.0, err_msg=name)
    assert codec.wire_bytes(payload) == total


@pytest.mark.parametrize("k", [64, 500])
def test_without_a_quantiser_what_is_kept_arrives_as_it_is(k: int) -> None:
    payload, codec = normal(SHAPES), SparseChunks(k=k, two_bit=False)
    arrived, nbytes = arrays(codec.roundtrip(payload)), 0
    for name, array in arrays(payload).items():
        expected, chunks, kept = np.zeros(array.size, np.float32), chunks_of(array), kept_of(array, k)
        for chunk, places in zip(chunks, kept):
            for place in places:
                expected[chunk[place]] = array.reshape(-1)[chunk[place]]
        assert arrived[name].reshape(-1).tolist() == expected.tolist(), name
        count = sum(map(len, kept))
        nbytes += math.ceil(count * math.ceil(math.log2(len(chunks[0]))) / 8) + 4 * count
    assert codec.wire_bytes(payload) == nbytes


@pytest.mark.parametrize(("k", "nbytes", "ratio"), [(32, 56, 292.6), (64, 112, 146.3), (128, 224, 73.1)])
def test_full_chunks_are_as_many_times_smaller_as_published(k: int, nbytes: int, ratio: float) -> None:
    payload = Params(Layout({"matrix": (640, 6400)}), None)  # 1,000 chunks of 64 × 64, and 20 bytes for all of them
    assert SparseChunks(k=k).wire_bytes(payload) == 1000 * nbytes + 20
    assert round(4 * 4096 / nbytes, 1) == ratio


@pytest.mark.parametrize(
    ("shape", "k", "nbytes"),
    [
        ((64,), 128, 2 * 8 // 8 + 20),  # two of 64: 6 bits and 2 each
        ((67,), 128, 17 + 20),  # pieces of one number, all kept, nowhere else to be: 67 · 2 bits
        ((50, 30), 64, -(-23 * 13 // 8) + 20),  # round(23.4) of 1500: 11 bits and 2 each
        ((40, 64), 8, 5 * 14 // 8 + 1 + 20),  # 5 of 2560: 12 bits and 2 each
        ((10, 64), 16, -(-2 * 12 // 8) + 20),  # of 2.5 the even one
        ((), 128, 1 + 20),
        ((0, 5), 128, 0),
    ],
)
def test_bytes_counted_by_hand(shape: tuple[int, ...], k: int, nbytes: int) -> None:
    assert SparseChunks(k=k).wire_bytes(Params(Layout({"theta": shape}), None)) == nbytes


def test_two_bits_by_hand() -> None:
    """μ = 2, σ = √(164/4) = 6.4; steps of 9.6: codes round(x/9.6 − .21 + 2) of −8, −2, 1, 4, 15 are 1, 2, 2, 2, 3."""
    payload = Params(Layout({"theta": (5,)}), torch.tensor([-8.0, -2.0, 15.0, 1.0, 4.0]))
    arrived = SparseChunks(k=4096).roundtrip(payload).flat
    assert arrived is not None and arrived.tolist() == [-8.0, 1.0, 15.0, 1.0, 1.0]


def test_of_gaussian_numbers_a_fifth_of_the_energy_is_kept_and_two_codes_are_used() -> None:
    """|x| > z = 2.154 are 1/32: 2 (z φ(z) + 1/64) = .200 of the energy, φ(2.154) = .0392. Their magnitudes have the
    mean .0392 · 64 = 2.509 and the mean square 6.40: ± 2.509 is off by √(6.40 − 2.509²) / √6.40 = .130 of them."""
    payload = normal({"matrix": (1024, 1024)})
    kept, arrived = SparseChunks(two_bit=False).roundtrip(payload), SparseChunks().roundtrip(payload)
    assert (kept.norm() / payload.norm()) ** 2 == pytest.approx(0.200, abs=0.003)
    assert kept.distance(arrived) / kept.norm() == pytest.approx(0.130, abs=0.003)
    assert arrived.flat is not None
    levels = arrived.flat.unique().tolist()
    assert levels == pytest.approx([-2.509, 0.0, 2.509], abs=0.01)


def test_a_single_kept_number_and_equal_ones_arrive_as_they_are() -> None:
    """A deviation of nothing, or none at all, is taken as 1."""
    for values in ([0.0, 0.0, 3.25, 1.0], [0.5, 0.5, 0.5, 0.5]):
        payload = Params(Layout({"theta": (4,)}), torch.tensor(values))
        arrived = SparseChunks(k=128 if values[0] == 0.0 else 4096).roundtrip(payload).flat
        assert arrived is not None and arrived.tolist() == [value if value in (3.25, 0.5) else 0.0 for value in values]


def test_of_equal_magnitudes_the_first_of_the_chunk_are_kept() -> None:
    values = torch.tensor([[1.0, -2.0, 2.0, -2.0], [3.0, 2.0, 2.0, 1.0]])  # one tile of 2 × 4
    payload = Params(Layout({"theta": (2, 4)}), values.reshape(-1))
    arrived = SparseChunks(k=4 * 512, two_bit=False).roundtrip(payload).flat
    assert arrived is not None and arrived.tolist() == [0.0, -2.0, 2.0, -2.0, 3.0, 0.0, 0.0, 0.0]


def test_what_is_not_finite_makes_what_arrives_of_its_tensor_so() -> None:
    for bad in (math.nan, math.inf):
        payload = Params(Layout({"bad": (64,), "good": (64,)}), torch.tensor([1.0, bad, *[0.5] * 126]))
        arrived = arrays(SparseChunks(k=128).roundtrip(payload))  # two of 64
        assert np.isnan(arrived["bad"]).sum() == 2 and np.isfinite(arrived["good"]).all()


# Error feedback


def test_what_is_left_out_fades_and_adds_up_as_by_hand() -> None:
    """One of two numbers travels, Δ = (4, 3) each time, β = ½: e + Δ is (4, 3), (4, 4.5), then (6, 3)."""
    codec = SparseChunks(k=2048, two_bit=False, decay=0.5)
    layout = Layout({"theta": (2,)})
    wire = Wire(codec, Params(layout, torch.zeros(2)), None)
    arrived = [wire.arriving(0, Params(layout, torch.tensor([4.0, 3.0])), codec).flat for _ in range(3)]
    # e: (0, 3) → (0, 1.5) is added; (4, 0) → (2, 0) is.
    assert [flat.tolist() for flat in arrived if flat is not None] == [[4.0, 0.0], [0.0, 4.5], [6.0, 0.0]]


@pytest.mark.parametrize(("n", "share"), [(5, 0.905), (20, 0.642), (60, 0.318)])
def test_a_number_sent_every_nth_round_has_lost_so_much_of_its_sum(n: int, share: float) -> None:
    """(1 − .95ⁿ) / (.05 n): n numbers of a chunk take turns, as each grows by 1 a round until it is the largest."""
    codec = SparseChunks(k=4096 // n, two_bit=False)
    layout = Layout({"theta": (n,)}, torch.float64)
    wire = Wire(codec, Params(layout, torch.zeros(n, dtype=torch.float64)), None)
    total = torch.zeros(n, dtype=torch.float64)
    for turn in range(40 * n):
        arrived = wire.arriving(0, Params(layout, torch.ones(n, dtype=torch.float64)), codec).flat
        assert arrived is not None and int((arrived != 0).sum()) == 1
        total += arrived if turn >= 30 * n else 0.0  # the beginning is long forgotten: .95^(30 · 5) < .0005
    assert (total / (10 * n)).tolist() == pytest.approx([(1 - 0.95**n) / (0.05 * n)] * n, rel=1e-9)
    assert float(total[0]) / (10 * n) == pytest.approx(share, abs=5e-4)


# Runs

CURVED = {"name": "quadratic", "size": 6, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3, 1, 2, 3]}
OUTER = {"name": "sgd", "lr": 0.8}


def run(codec: Any, **changes: Any) -> Recording:
    sections = two_workers(6, policy={"name": "diloco", "outer": OUTER}, model=CURVED, codec=codec)
    return record(sections | changes, PLUGIN)


def models(recording: Recording) -> list[Any]:
    return [commit.params.flat.tolist() for commit in recording.global_commits]  # type: ignore[union-attr]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 1.0])
def test_all_of_it_unquantised_is_diloco_with_any_decay(decay: float) -> None:
    everything = {"name": "sparse_chunks", "k": 4096, "two_bit": False, "decay": decay}
    assert models(run(everything)) == models(run("fp32"))


def test_a_decay_of_nothing_is_no_error_feedback() -> None:
    forgetful = {"name": "sparse_chunks", "k": 1024, "decay": 0.0}
    assert models(run(forgetful)) == models(run(forgetful | {"error_feedback": False}))
    assert models(run(forgetful)) != models(run(forgetful | {"decay": 0.95}))


def test_rounds_equal_the_equations() -> None:
    """Two workers, two of six numbers, unquantised: e ← .9 e + Δ; s = the two largest; θ ← θ − .8 · mean s."""
    recording = run({"name": "sparse_chunks", "k": 1365, "two_bit": False, "decay": 0.9})
    left, theta = np.zeros((2, 6)), np.zeros(6)
    for commit in recording.global_commits:
        sent = np.zeros((2, 6))
        for update in (update for share in commit.shares for update in share.updates):
            assert update.delta.flat is not None
            whole = 0.9 * left[update.worker] + update.delta.flat.numpy()
            for place in sorted(range(6), key=lambda i: -abs(whole[i]))[:2]:
                sent[update.worker, place] = whole[place]
            left[update.worker] = whole - sent[update.worker]
        theta = theta - 0.8 * sent.mean(0)
        assert commit.params.flat is not None
        np.testing.assert_allclose(commit.params.flat.numpy(), theta, rtol=0, atol=1e-12)


def test_every_payload_goes_to_everybody() -> None:
    """64 numbers are two places of six bits, two codes and 20 bytes: 22, to three others each, from four workers."""
    sections = tiny(
        codec={"name": "sparse_chunks"},
        cluster={"regions": [{"workers": [1.0] * 4}]},
        network={"bandwidth_gbps": 176e-9},  # 22 bytes a second
        model={"size": 64},
        budget={"local_steps": 8},
    )
    (transfer,) = record(sections, PLUGIN).transfers
    assert (transfer.time - transfer.start_time, transfer.bytes) == (pytest.approx(3.0), 4 * 3 * 22)


# The mean over those who sent

SENDERS = {"name": "mean_of_senders"}
EQUAL = {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0}


def combined(*rows: list[float], weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> list[float]:
    layout = Layout({"theta": (len(rows[0]),)}, torch.float64)
    several = [Params(layout, torch.tensor(row, dtype=torch.float64)) for row in rows]
    aggregate, _ = MeanOfSenders().combine(map(Payload, range(3), several, weights), None)
    return aggregate.flat.tolist()  # type: ignore[union-attr]


def test_a_number_is_divided_by_those_who_sent_it() -> None:
    rows = [4.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, -9.0]
    assert combined(*rows) == [3.0, 0.0, 1.0, -9.0]
    # Weights 1, 3, 2: (4 + 6) / 4, nobody, (1 + 2) / 3, −18 / 2.
    assert combined(*rows, weights=(1.0, 3.0, 2.0)) == [2.5, 0.0, 1.0, -9.0]


@pytest.mark.parametrize("codec", [{"name": "sparse_chunks", "k": 1365, "two_bit": False}, "fp32"])
def test_where_all_send_the_same_it_is_the_mean(codec: Any) -> None:
    """Two equal workers without noise, or everything of two others."""
    same: dict[str, Any] = {} if codec == "fp32" else {"model": CURVED | {"noise": 0.0}, "cluster": EQUAL}
    ours, theirs = run(codec, aggregate=SENDERS, **same), run(codec, **same)
    np.testing.assert_allclose(models(ours), models(theirs), rtol=1e-12)


def test_otherwise_it_is_up_to_as_many_times_the_mean_as_there_are_workers() -> None:
    """Four of six numbers: two at least are sent by both, and with so much noise some by one."""
    codec = {"name": "sparse_chunks", "k": 2731, "two_bit": False}
    noisy = {"model": CURVED | {"noise": 3.0}}
    first, mean = (models(run(codec, **noisy, **more))[0] for more in ({"aggregate": SENDERS}, {}))
    ratios = [one / other for one, other in zip(first, mean) if other != 0.0]
    assert {round(ratio, 9) for ratio in ratios} == {1.0, 2.0}


def test_counts_travel_beside_what_can_be_summed() -> None:
    layout = Layout({"theta": (100,)})
    assert list(MeanOfSenders().exchanges(400, layout, 4)) == [Exchange(400), Exchange(38)]  # 0 to 4: 3 bits each
    assert list(MeanOfSenders().exchanges(400, layout, 3)) == [Exchange(400), Exchange(25)]
    codec = {"name": "sparse_chunks", "k": 1365}
    plain, ours = run(codec), run(codec, aggregate=SENDERS)
    assert [each.bytes for each in ours.transfers] == [each.bytes for each in plain.transfers]  # all is gathered anyway
