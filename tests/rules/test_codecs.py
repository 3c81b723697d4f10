"""The built-in codecs, against numbers that IEEE formats are known to have."""

from __future__ import annotations

import math

import pytest
import torch

from halos.rules.codecs import FP32, Bf16, Codec, Fp16, Fp32
from halos.values.params import Layout, Params
from tests.made import params


def arrived(codec: Codec, first: float, second: float) -> list[float]:
    decoded = codec.roundtrip(params(first, second)).flat
    assert decoded is not None and decoded.dtype == torch.float32
    return decoded.tolist()


def test_single_precision_arrives_as_it_is() -> None:
    payload = params(0.1, 1e30)
    assert FP32.roundtrip(payload) is payload


def test_half_precision_has_eleven_bits_and_ends_at_65504() -> None:
    assert arrived(Fp16(), 0.1, 2049.0) == [0.0999755859375, 2048.0]
    assert arrived(Fp16(), 65504.0, -1e6) == [65504.0, -math.inf]


def test_bfloat16_has_eight_bits_and_does_not_end_there() -> None:
    assert arrived(Bf16(), 0.1, 257.0) == [0.10009765625, 256.0]
    assert arrived(Bf16(), 70_000.0, -(2.0**100)) == [70_144.0, -(2.0**100)]  # a multiple of 512


@pytest.mark.parametrize(("codec", "nbytes"), [(Fp32(), 24), (Fp16(), 12), (Bf16(), 12)])
def test_bytes_are_those_of_every_parameter_hollow_or_not(codec: Codec, nbytes: int) -> None:
    layout = Layout({"weight": (2, 2), "bias": (2,)})
    hollow = Params(layout, None)
    assert codec.wire_bytes(hollow) == codec.wire_bytes(Params(layout, torch.zeros(6))) == nbytes
    assert codec.roundtrip(hollow).hollow
