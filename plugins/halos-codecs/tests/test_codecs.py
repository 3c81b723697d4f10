"""Codecs: encodings really packed into bytes, error bounds for arbitrary numbers, and what goes wrong loudly."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from halos_codecs import Fp4E3M0, Int4, Int8, LowRank, Sign, TopK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from halos import Codec, ConfigError, Fp16, Fp32, Layout, Params
from halos.testing import record, tiny
from halos.testing.conformance import CodecConformance

PLUGIN = ["halos_codecs"]
TINIEST = 2.0**-149  # the smallest positive number in fp32
BLOCKED = [Int8, Int4, Fp4E3M0, Sign]

numbers = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)
lengths = st.sampled_from([1, 2, 7, 16, 64, None])


def payload(values: Any, dtype: torch.dtype = torch.float32) -> Params:
    flat = torch.as_tensor(values, dtype=dtype).reshape(-1)
    return Params(Layout({"theta": (len(flat),)}, dtype), flat)


def sent(codec: Codec, values: Any, dtype: torch.dtype = torch.float32) -> NDArray[np.float64]:
    """What arrives, in float64."""
    flat = codec.roundtrip(payload(values, dtype)).flat
    assert flat is not None
    assert flat.dtype == dtype
    return flat.double().numpy()


def in_blocks(values: list[float], block: int | None) -> list[NDArray[np.float64]]:
    length = block or len(values)
    return [np.array(values[i : i + length]) for i in range(0, len(values), length)]


class TestConformance(CodecConformance):
    plugins = PLUGIN
    sections = (
        {"name": "low_rank", "rank": 2, "factors": {"name": "int4"}, "rest": {"name": "fp16"}},
        {"name": "topk", "fraction": 0.1, "values": {"name": "int8", "block": None}},
    )


# Encodings that exist: packed and unpacked here, in the bytes that the codec counts


def packed_integers(values: list[float], block: int | None, bits: int) -> bytes:
    """All scales, then all numbers in two's complement, `bits` each, the first one lowest."""
    levels, scales, word = 2 ** (bits - 1) - 1, b"", 0
    for i, value in enumerate(values):
        length = block or len(values)
        if i % length == 0:
            scale = np.float32(max(abs(each) for each in values[i : i + length]) / levels)
            scales += struct.pack("<f", scale)
        whole = round(float(np.float32(value) / scale)) if scale else 0
        word |= (max(-levels, min(levels, whole)) & (2**bits - 1)) << bits * i
    return scales + word.to_bytes(math.ceil(bits * len(values) / 8), "little")


def unpacked_integers(data: bytes, count: int, block: int | None, bits: int) -> list[float]:
    length = block or count
    scales = math.ceil(count / length)
    word, result = int.from_bytes(data[4 * scales :], "little"), []
    for i in range(count):
        whole = word >> bits * i & (2**bits - 1)
        whole -= 2**bits if whole >= 2 ** (bits - 1) else 0
        (scale,) = struct.unpack_from("<f", data, 4 * (i // length))
        result.append(float(np.float32(whole) * np.float32(scale)))
    return result


@pytest.mark.parametrize("block", [1, 7, 64, None])
@pytest.mark.parametrize(("codec", "bits"), [(Int8, 8), (Int4, 4)])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65])
def test_integers_arrive_as_unpacked_from_as_many_bytes(codec: Any, bits: int, count: int, block: int | None) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).tolist()
    data = packed_integers(values, block, bits)
    assert codec(block=block).wire_bytes(payload(values)) == len(data)
    assert sent(codec(block=block), values).tolist() == unpacked_integers(data, count, block, bits)


@pytest.mark.parametrize("count", [1, 8, 63, 65])
def test_signs_arrive_as_unpacked_from_as_many_bytes(count: int) -> None:
    values, block = torch.randn(count, generator=torch.Generator().manual_seed(count)).tolist(), 16
    means = [np.mean(np.abs(each)) for each in in_blocks(values, block)]
    data = struct.pack(f"<{len(means)}f", *means) + np.packbits(np.array(values) < 0).tobytes()
    assert Sign(block=block).wire_bytes(payload(values)) == len(data)

    scales = struct.unpack_from(f"<{len(means)}f", data)
    minus = np.unpackbits(np.frombuffer(data[4 * len(means) :], np.uint8))[:count]
    expected = [-scales[i // block] if minus[i] else scales[i // block] for i in range(count)]
    assert sent(Sign(block=block), values).tolist() == pytest.approx(expected, rel=1e-7)


def test_the_largest_arrive_as_unpacked_from_as_many_bytes() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).tolist()
    largest = sorted(range(50), key=lambda i: -abs(values[i]))[:15]
    data = b"".join(struct.pack("<If", i, values[i]) for i in largest)
    assert TopK(fraction=0.3).wire_bytes(payload(values)) == len(data) == 15 * 8
    expected = np.zeros(50)
    for i, value in struct.iter_unpack("<If", data):
        expected[i] = value
    assert sent(TopK(fraction=0.3), values).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("codec", "size", "expected"),
    [
        (Int8(), 1000, 1000 + 4 * 4),  # 1000 numbers are four blocks of 256
        (Int4(), 1001, 501 + 4 * 4),
        (Int4(block=None), 1001, 501 + 4),
        (Fp4E3M0(), 1001, 501 + 4 * 4),
        (Sign(), 1001, 126 + 4 * 4),
        (TopK(), 1000, 10 * (4 + 4)),
        (TopK(), 3, 1 * (4 + 4)),  # at least one
        (TopK(fraction=1.0), 10, 10 * (4 + 4)),
        (TopK(fraction=0.575), 100, 58 * (4 + 4)),  # of 57.5 the even one, though 0.575 · 100 is a little less
        (TopK(fraction=0.1, values=Fp16()), 1000, 100 * (4 + 2)),
        (TopK(fraction=0.1, values=Int4()), 1000, 100 * 4 + 50 + 4),
    ],
)
def test_bytes_counted_by_hand(codec: Codec, size: int, expected: int) -> None:
    assert codec.wire_bytes(Params(Layout({"theta": (size,)}), None)) == expected


def test_what_holds_nothing_weighs_nothing_and_arrives() -> None:
    for codec in (Int8(), Int4(block=None), Fp4E3M0(), Sign(), Sign(block=None), TopK(), LowRank()):
        assert codec.wire_bytes(payload([])) == 0
        assert sent(codec, []).tolist() == []


# Errors, whatever the numbers


@given(numbers, lengths, st.sampled_from([(Int8, 127), (Int4, 7)]))
def test_integers_are_off_by_half_a_scale_at_most(values: list[float], block: int | None, kind: Any) -> None:
    codec, levels = kind
    arrived = sent(codec(block=block), values)
    for mine, theirs in zip(in_blocks(values, block), in_blocks(arrived.tolist(), block)):
        largest = np.abs(mine).max()
        # The scale itself is rounded, to 24 bits, or to the next denormal number.
        bound = (largest / levels + TINIEST) / 2 + largest * 2.0**-22 + TINIEST
        assert np.abs(mine - theirs).max() <= bound


@given(numbers, lengths)
def test_powers_of_two_are_off_by_a_third_or_by_half_the_smallest(values: list[float], block: int | None) -> None:
    """The middle of 2^k and 2^(k+1) is 1.5 · 2^k, which is off by 0.5 / 1.5."""
    arrived = sent(Fp4E3M0(block=block), values)
    for mine, theirs in zip(in_blocks(values, block), in_blocks(arrived.tolist(), block)):
        bound = np.maximum(np.abs(mine) / 3, np.abs(mine).max() / 128)
        assert (np.abs(mine - theirs) <= bound * (1 + 1e-6) + TINIEST).all()


def test_powers_of_two_by_hand() -> None:
    values = [64.0, -48.0, 47.9, 1.5, 1.4, -1.0, 0.5, 0.49, 0.0]
    assert sent(Fp4E3M0(), values).tolist() == [64.0, -64.0, 32.0, 2.0, 1.0, -1.0, 1.0, 0.0, 0.0]


@given(numbers, lengths)
def test_signs_lose_what_the_mean_magnitude_leaves(values: list[float], block: int | None) -> None:
    """‖x − x̂‖² = ‖x‖² − ‖x‖₁² / n of every block: the scale is the best there is."""
    arrived = sent(Sign(block=block), values)
    for mine, theirs in zip(in_blocks(values, block), in_blocks(arrived.tolist(), block)):
        expected = np.sum(mine**2) - np.sum(np.abs(mine)) ** 2 / len(mine)
        slack = 1e-6 * np.sum(mine**2) + len(mine) * TINIEST**2
        assert abs(np.sum((mine - theirs) ** 2) - expected) <= slack


@given(numbers, st.floats(0.01, 1.0))
def test_of_the_largest_nothing_is_lost_but_the_smaller_ones(values: list[float], fraction: float) -> None:
    mine, theirs = np.array(values), sent(TopK(fraction=fraction), values)
    count = max(1, round(Fraction(str(fraction)) * len(values)))  # as it is on paper
    dropped = np.sort(np.abs(mine))[: len(values) - count]
    assert np.count_nonzero(theirs) <= count
    assert (theirs[theirs != 0] == mine[theirs != 0]).all()
    assert np.linalg.norm(mine - theirs) == pytest.approx(np.linalg.norm(dropped), rel=1e-12)


def test_of_equal_magnitudes_the_first_are_chosen() -> None:
    assert sent(TopK(fraction=0.4), [1.0, -2.0, 2.0, -2.0, 2.0]).tolist() == [0.0, -2.0, 2.0, 0.0, 0.0]


@given(numbers, lengths, st.sampled_from([Fp4E3M0, Sign, TopK]))
def test_what_has_arrived_arrives_unchanged(values: list[float], block: int | None, kind: Any) -> None:
    """Except for powers of two that are so small that halves of them are rounded."""
    values = [each if abs(each) > 1e-30 else 0.0 for each in values]
    codec = TopK(fraction=0.3) if kind is TopK else kind(block=block)
    once = sent(codec, values)
    assert sent(codec, once).tolist() == pytest.approx(once.tolist(), rel=1e-7 if kind is Sign else 0, abs=0)


# Low rank


def matrix(n: int, m: int, rank: int, seed: int, dtype: torch.dtype = torch.float64) -> Params:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n, rank, generator=draw, dtype=dtype) @ torch.randn(rank, m, generator=draw, dtype=dtype)
    return Params(Layout({"matrix": (n, m)}, dtype), values.reshape(-1))


def distance(a: Params, b: Params) -> float:
    return (a - b).norm() / b.norm()


@settings(deadline=None)
@given(st.integers(9, 40), st.integers(9, 40), st.integers(1, 4), st.integers(0, 1000))
def test_a_matrix_of_that_rank_or_less_arrives(n: int, m: int, rank: int, seed: int) -> None:
    original = matrix(n, m, rank, seed)
    for codec in (LowRank(rank=4), LowRank(rank=4, iterations=1)):
        assert codec.wire_bytes(original) == (4 + 4 * 4 * (n + m) if 4 * (n + m) < n * m else 4 * n * m)
        assert distance(codec.roundtrip(original), original) < 1e-9
    single = matrix(n, m, 1, seed, torch.float32)
    assert distance(LowRank().roundtrip(single), single) < 1e-5


@settings(deadline=None)
@given(st.integers(9, 40), st.integers(9, 40), st.integers(1, 4), st.integers(0, 1000))
def test_no_error_is_larger_than_the_payload_or_smaller_than_the_best(n: int, m: int, rank: int, seed: int) -> None:
    original = matrix(n, m, 9, seed)
    assert original.flat is not None
    singular = torch.linalg.svdvals(original.flat.view(n, m))
    best = float(singular[rank:].norm() / singular.norm()) if rank * (n + m) < n * m else 0.0
    assert best * (1 - 1e-12) <= distance(LowRank(rank=rank).roundtrip(original), original) <= 1.0
    patient = LowRank(rank=rank, iterations=200)
    assert distance(patient.roundtrip(original), original) <= 1.05 * best + 1e-12  # where singular values lie close


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_a_model_in_half_precision_has_factors_too(dtype: torch.dtype, digits: float) -> None:
    """Of a matrix of rank one, with numbers that half precision holds: u vᵀ, up to a few of its roundings."""
    u, v = torch.arange(1.0, 17.0), torch.tensor([1.0, -2.0, 0.5] * 5)
    exact = torch.outer(u, v)
    arrived = LowRank(rank=1).roundtrip(Params(Layout({"matrix": (16, 15)}, dtype), exact.reshape(-1).to(dtype))).flat
    assert arrived is not None and arrived.dtype == dtype
    assert float((arrived.float().view(16, 15) - exact).norm() / exact.norm()) < digits


def test_vectors_and_small_matrices_are_sent_as_the_rest() -> None:
    layout = Layout({"bias": (7,), "square": (8, 8), "matrix": (20, 10), "kernel": (10, 5, 4)})
    flat = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    original = Params(layout, flat)
    codec = LowRank(rank=4, rest=Fp16())
    # 4 · (8 + 8) numbers are not fewer than 8 · 8; [20, 10] and [10, 20] are 120 and a scale each.
    assert codec.wire_bytes(original) == 2 * (4 * 120 + 4) + 2 * (7 + 64)
    arrived = codec.roundtrip(original).tensors()
    for name, tensor in original.tensors().items():
        kept = name in ("bias", "square")
        assert (arrived[name].half() == tensor.half()).all() == kept
        assert torch.linalg.matrix_rank(arrived["kernel"].reshape(10, 20)) == 4


def test_a_part_of_the_layout_keeps_its_matrices() -> None:
    layout = Layout({"one": (20, 10), "two": (30, 10), "bias": (5,)})
    original = Params(layout, torch.randn(layout.size, generator=torch.Generator().manual_seed(0)))
    codec = LowRank(rank=2)
    part = (slice(100, 500), slice(500, 505))  # half of `one`, which is a vector now, all of `two`, and the bias
    assert codec.wire_bytes(original[part]) == 4 * 100 + (4 + 4 * 2 * 40) + 4 * 5
    whole, arrived = codec.roundtrip(original).flat, codec.roundtrip(original[part]).flat
    assert whole is not None and arrived is not None and original.flat is not None
    torch.testing.assert_close(arrived[100:], whole[200:])
    assert (arrived[:100] == original.flat[100:200]).all()


def test_factors_in_four_bits_by_hand() -> None:
    """u vᵀ: P is u / ‖u‖ and Q, of the matrix divided by its largest entry, v ‖u‖ / 64, each up to the same sign."""
    u, v = np.arange(1.0, 9.0), np.array([8.0, -7, 6, -5, 4, -3, 2, -1])
    original = payload(np.outer(u, v))
    original = Params(Layout({"matrix": (8, 8)}), original.flat)
    codec = LowRank(rank=1, factors=Int4())
    assert codec.wire_bytes(original) == 4 + (4 + 4) + (4 + 4)
    arrived = codec.roundtrip(original).flat
    assert arrived is not None
    # In units of 8 / 7: 1 … 8 are 0.875, 1.75, 2.625, 3.5, 4.375, 5.25, 6.125, 7, and 8 is 7.
    in_units = np.array([1, 2, 3, 4, 4, 5, 6, 7])
    factors = np.outer(in_units * 8 / 7, (in_units * 8 / 7)[::-1] * np.array([1, -1] * 4))
    # 3.5 itself lies on the edge: either neighbour is right there.
    sure = np.array([0, 1, 2, 4, 5, 6, 7])
    got = arrived.view(8, 8).numpy()
    np.testing.assert_allclose(got[np.ix_(sure, 7 - sure)], factors[np.ix_(sure, 7 - sure)], rtol=1e-5)


def test_all_senders_start_from_the_same_matrix_and_another_seed_gives_another() -> None:
    original = matrix(30, 20, 10, 0)
    one, same, other = (LowRank(seed=seed).roundtrip(original).flat for seed in (0, 0, 1))
    assert one is not None and same is not None and other is not None
    assert (one == same).all()
    assert not torch.allclose(one, other)


# Numbers that are not


ALL = [Int8(), Int4(), Fp4E3M0(), Sign(), TopK(), LowRank(), LowRank(factors=Int4(), rest=Int4())]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("codec", ALL, ids=lambda codec: type(codec).__name__)
def test_what_is_not_finite_does_not_become_so(codec: Codec, dtype: torch.dtype, bad: float) -> None:
    layout = Layout({"matrix": (30, 20), "bias": (20,)}, dtype)
    for place in (0, 299, 600, 619):
        flat = torch.randn(layout.size, generator=torch.Generator().manual_seed(0), dtype=dtype)
        flat[place] = bad
        arrived = codec.roundtrip(Params(layout, flat)).flat
        assert arrived is not None
        assert not torch.isfinite(arrived[place])


@pytest.mark.parametrize("scale", [1e37, 1e-38, 2.0**-140])
@pytest.mark.parametrize("codec", ALL, ids=lambda codec: type(codec).__name__)
def test_huge_and_tiny_numbers_are_coded_as_any_others(codec: Codec, scale: float) -> None:
    layout = Layout({"matrix": (30, 20), "bias": (20,)})
    flat = torch.randn(layout.size, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    plain, scaled = (codec.roundtrip(Params(layout, each)).flat for each in (flat, flat * scale))
    assert plain is not None and scaled is not None
    away = (plain.double() - scaled.double() / scale).norm() / plain.norm()
    assert away < (1e-4 if scale > 1e-39 else 0.1)  # denormal numbers have few bits


@pytest.mark.parametrize("codec", ALL, ids=lambda codec: type(codec).__name__)
def test_in_float64_it_is_the_same_but_for_rounding(codec: Codec) -> None:
    flat = torch.randn(620, generator=torch.Generator().manual_seed(0))
    shapes: dict[str, tuple[int, ...]] = {"matrix": (30, 20), "bias": (20,)}
    single, double = (
        codec.roundtrip(Params(Layout(shapes, dtype), flat.to(dtype))).flat for dtype in (torch.float32, torch.float64)
    )
    assert single is not None and double is not None
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_numbers_beyond_the_scales_do_not_pass_unnoticed() -> None:
    """In float64 there are numbers that no scale in fp32 can hold."""
    for codec in (Int8(), Int4(), Fp4E3M0(), Sign()):
        assert not np.isfinite(sent(codec, [1e300, 1.0], torch.float64)[0])
        assert sent(codec, [1e-300, -1e-300], torch.float64).tolist() == pytest.approx([0.0, 0.0], abs=1e-44)


@pytest.mark.parametrize("codec", ALL, ids=lambda codec: type(codec).__name__)
def test_what_arrives_is_the_next_of_the_runs_parameters_hollow_or_not(codec: Codec) -> None:
    """Serial numbers are how a run that is replayed without values finds them again."""
    layout = Layout({"matrix": (30, 20), "bias": (20,)})
    for flat in (torch.ones(620), None):
        given = Params(layout, flat)
        codec.wire_bytes(given)
        assert codec.roundtrip(given).serial == given.serial + 1


# Mistakes


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "int8", "block": 0}, r"codec\.block: 0 is not a positive number, or null for one block"),
        ({"name": "topk", "fraction": 0.0}, r"codec\.fraction: 0\.0 is not in \(0, 1\]"),
        ({"name": "low_rank", "rank": 0}, r"codec\.rank: 0 is not a positive number"),
        ({"name": "low_rank", "iterations": 0}, r"codec\.iterations: 0 is not from 1 to 1000"),
        (
            {"name": "low_rank", "factors": {"name": "int4", "error_feedback": True}},
            r"codec\.factors\.error_feedback: true is not possible inside another codec; the outer one's counts",
        ),
    ],
)
def test_a_mistake_is_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        record(tiny(codec=section), PLUGIN)


def test_every_codec_can_be_had_by_name() -> None:
    names = {"int8": Int8, "int4": Int4, "fp4_e3m0": Fp4E3M0, "sign": Sign, "topk": TopK, "low_rank": LowRank}
    for name, kind in names.items():
        assert record(tiny(codec=name), PLUGIN).config.codec == kind()
    nested = {"name": "low_rank", "rank": 2, "factors": "int4", "rest": {"name": "topk", "values": "fp16"}}
    expected = LowRank(rank=2, factors=Int4(), rest=TopK(values=Fp16()))
    assert record(tiny(codec=nested), PLUGIN).config.codec == expected
    assert TopK().values == Fp32()
