"""Codecs in runs: what error feedback gives back, and what collectives of their payloads cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from halos_codecs import Fp4E3M0, Int4, LowRank, Sign, TopK

from halos import Codec, Layout, Params
from halos.testing import Recording, Wire, record, tiny

PLUGIN = ["halos_codecs"]
FED_BACK = [
    Int4(error_feedback=True),
    Fp4E3M0(error_feedback=True),
    Sign(error_feedback=True),
    TopK(fraction=0.1, error_feedback=True),
    LowRank(rank=2, factors=Int4(), error_feedback=True),
]


@pytest.mark.parametrize("codec", FED_BACK, ids=lambda codec: type(codec).__name__)
def test_over_many_sends_all_but_the_last_residual_arrives(codec: Codec) -> None:
    layout = Layout({"matrix": (30, 20), "bias": (20,)}, torch.float64)
    draw = torch.Generator().manual_seed(0)
    wire = Wire(codec, Params(layout, torch.zeros(620, dtype=torch.float64)), None)
    given, arrived = torch.zeros(620, dtype=torch.float64), torch.zeros(620, dtype=torch.float64)
    payload = torch.randn(620, generator=draw, dtype=torch.float64)  # what does not change much is what adds up
    for _ in range(50):
        each = payload + 0.1 * torch.randn(620, generator=draw, dtype=torch.float64)
        received = wire.arriving("sender", Params(layout, each), codec).flat
        assert received is not None
        given, arrived = given + each, arrived + received
    missing = given - arrived
    residual = wire._residuals["sender", layout, id(codec)].flat
    assert residual is not None
    torch.testing.assert_close(missing, residual, rtol=0, atol=1e-12)
    # Without it every send would lose about the same again.
    without = type(codec)(**{**vars(codec), "error_feedback": False})
    sent = Params(layout, payload)
    assert missing.norm() < 0.5 * 50 * (sent - without.roundtrip(sent)).norm()


@pytest.mark.parametrize("codec", ["int4", "topk"])
def test_in_a_run_what_was_trained_is_in_the_model_but_for_the_residuals(codec: str) -> None:
    """Outer SGD of rate 1: the model has moved by the mean of what arrived."""
    recording = record(
        tiny(
            codec={"name": codec, "error_feedback": True},
            model={"size": 60, "noise": 0.5, "dtype": "float64", "curvature": 0.1},
            cluster={"regions": [{"workers": [1.0, 1.0, 1.0]}]},
            budget={"local_steps": 3 * 2 * 20},
        ),
        PLUGIN,
    )
    trained = torch.zeros(60, dtype=torch.float64)
    for update in recording.updates:
        assert update.delta.flat is not None
        trained += update.delta.flat / 3
    residuals = [each.flat for each in recording.simulation._wire._residuals.values()]
    assert len(residuals) == 3
    held = sum(each / 3 for each in residuals if each is not None)
    model = recording.simulation.params.flat  # from 0
    assert model is not None
    assert float(held.norm()) > 1e-6  # type: ignore[union-attr]
    torch.testing.assert_close(-model, trained - held, rtol=0, atol=1e-12)


def cost(codec: Any, size: int = 8, workers: int = 4, bits_per_second: float = 128.0) -> tuple[Any, int]:
    """Seconds and bytes of the only all-reduce of a run whose steps take two seconds."""
    recording: Recording = record(
        tiny(
            codec=codec,
            cluster={"regions": [{"workers": [1.0] * workers}]},
            network={"bandwidth_gbps": bits_per_second / 1e9},
            model={"size": size},
            budget={"local_steps": 2 * workers},
        ),
        PLUGIN,
    )
    (transfer,) = recording.transfers
    assert transfer.start_time == 2.0
    return transfer.time - 2.0, transfer.bytes


def test_sparse_payloads_are_passed_on_to_everybody_one_by_one() -> None:
    # Two of eight numbers are 16 bytes, a second on these links. Three times each, by each of four workers.
    assert cost({"name": "topk", "fraction": 0.25}) == (pytest.approx(3.0), 4 * 3 * 16)
    # With one worker nothing is sent.
    assert cost({"name": "topk", "fraction": 0.25}, workers=1) == (0.0, 0)


def test_quantised_payloads_are_summed_under_way() -> None:
    # Eight numbers in four bits and a scale are 8 bytes, half a second: 2 · 3/4 of it, and twice through three links.
    assert cost("int4") == (pytest.approx(2 * 3 / 4 * 0.5), 2 * 3 * 8)
    assert cost("sign") == (pytest.approx(2 * 3 / 4 * 5 / 16), 2 * 3 * 5)


def test_means_are_formed_in_the_layouts_precision() -> None:
    """The workers' differences, [.1, .03] and [.19, .057], become multiples 7 and 2 of .1/7 and .19/7 each."""
    recording = record(
        tiny(
            codec="int4",
            cluster={"regions": [{"workers": [1.0, 0.5]}]},
            steps={"name": "by_speed", "base": 2},
            model={"optimum": [1.0, 0.3]},
            budget={"local_steps": 3},
        ),
        PLUGIN,
    )
    model = recording.simulation.params.flat
    assert model is not None
    assert model.tolist() == pytest.approx([0.145, (0.1 + 0.19) / 2 * 2 / 7], rel=1e-6)
