"""fp16's loss scale along a job: which steps it left out."""

from __future__ import annotations

import torch

from halos.training.scales import Scales

CPU = torch.device("cpu")


def test_a_step_is_left_out_when_the_scale_is_halved_after_it() -> None:
    """From 2³: halved by the first, doubled after two that were fine (2², 2³), and halved by the fourth."""
    theta = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([theta], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    scales = Scales(scaler, CPU)
    for gradient in (float("inf"), 1.0, 1.0, float("nan")):
        theta.grad = scaler.scale(torch.tensor([gradient]))  # type: ignore[assignment]
        scaler.step(optimizer)
        scaler.update()
        scales.note()
    assert list(scales.lowered()) == [(1, 4.0), (4, 4.0)]
    assert theta.tolist() == [-2.0]


def test_in_other_precisions_there_is_nothing_to_note() -> None:
    scales = Scales(torch.amp.GradScaler("cpu", enabled=False), CPU)
    scales.note()
    assert list(scales.lowered()) == []
