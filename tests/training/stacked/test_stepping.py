"""Steps of rows against torch.optim, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos.training.inner_states import moments_of
from halos.training.options import OptimizerOptions, TrainOptions
from halos.training.stacked.stepping import clip, columns, descend

RATES = [[0.1, 0.01, 0.3], [0.2, 0.02, 0.3], [0.05, 0.0, 0.3]]  # three steps, three rows


def reference(options: OptimizerOptions, vector: torch.Tensor, decay: float) -> torch.optim.Optimizer:
    if options.name == "sgd":
        return torch.optim.SGD([vector], lr=1.0, momentum=options.momentum, weight_decay=decay)
    return torch.optim.AdamW([vector], lr=1.0, betas=options.betas, eps=options.eps, weight_decay=decay)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clipped", [0.0, 2.0])
@pytest.mark.parametrize(
    "options",
    [
        OptimizerOptions(),
        OptimizerOptions(betas=(0.5, 0.9), eps=0.1, weight_decay=0.0),
        OptimizerOptions(name="sgd", weight_decay=0.3),
        OptimizerOptions(name="sgd", momentum=0.9, weight_decay=0.3),
    ],
)
def test_every_row_steps_as_torch_steps_a_vector(options: OptimizerOptions, clipped: float, dtype: torch.dtype) -> None:
    """Three rows of 5 numbers, 3 of which decay; each row with rates of its own, the last one with two steps behind."""
    torch.manual_seed(0)
    before = 2
    params, grads = torch.randn(3, 5, dtype=dtype), 3 * torch.randn(before + 3, 3, 5, dtype=dtype)
    rows = []
    for row in range(3):
        pieces = [params[row, :3].clone().requires_grad_(), params[row, 3:].clone().requires_grad_()]
        rows.append((pieces, [reference(options, pieces[0], options.weight_decay), reference(options, pieces[1], 0.0)]))

    def stepped(row: int, grad: torch.Tensor, rate: float) -> None:
        pieces, optimizers = rows[row]
        pieces[0].grad, pieces[1].grad = grad[:3].clone(), grad[3:].clone()
        if clipped:
            torch.nn.utils.clip_grad_norm_(pieces, clipped)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()

    for step in range(before):
        stepped(2, grads[step, 2], 0.5)
    params[2] = torch.cat([piece.detach() for piece in rows[2][0]])
    moments = {name: torch.zeros(3, 5, dtype=dtype) for name in moments_of(options)}
    for name, matrix in moments.items():
        matrix[2] = torch.cat([each.state[piece][name] for piece, each in zip(*rows[2])])
    table = columns(options, RATES, [0.0, 0.0, float(before)], params)
    for step, rates in enumerate(RATES):
        for row in range(3):
            stepped(row, grads[before + step, row], rates[row])
        descend(params, grads[before + step], moments, table[step], 3, TrainOptions(optimizer=options, clip=clipped))
    close: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-13}
    for row, (pieces, optimizers) in enumerate(rows):
        torch.testing.assert_close(params[row], torch.cat([piece.detach() for piece in pieces]), **close)
        for name, matrix in moments.items():
            theirs = torch.cat([each.state[piece][name] for piece, each in zip(pieces, optimizers)])
            torch.testing.assert_close(matrix[row], theirs, **close)


def test_only_the_row_that_is_too_long_is_clipped() -> None:
    grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])  # norms 5, 0.5 and 0
    clip(grad, 1.0)
    assert grad[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-6)
    assert torch.equal(grad[1:], torch.tensor([[0.3, 0.4], [0.0, 0.0]]))
    clip(long := torch.tensor([[3.0, 4.0]]), 0.0)
    assert long.tolist() == [[3.0, 4.0]]
