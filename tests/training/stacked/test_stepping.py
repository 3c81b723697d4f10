"""Steps of rows against torch.optim, one by one, and by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

import pytest
import torch

from halos.training.optimizers import SGD, AdamW, InnerOptimizer, Moments
from halos.training.options import TrainOptions
from halos.training.stacked.rows import Rows
from halos.training.stacked.stepping import clip_rows, stepping
from halos.training.trainer import clip
from halos.values.params import Layout

RATES = [[0.1, 0.01, 0.3], [0.2, 0.02, 0.3], [0.05, 0.0, 0.3]]  # three steps, three rows
CPU = torch.device("cpu")


def layout(dtype: torch.dtype) -> Layout:
    """Five numbers, of which three decay."""
    return Layout({"matrix": (1, 3), "vector": (2,)}, dtype)


def reference(options: Union[AdamW, SGD], vector: torch.Tensor, decay: float) -> torch.optim.Optimizer:
    if isinstance(options, SGD):
        return torch.optim.SGD([vector], lr=1.0, momentum=options.momentum, weight_decay=decay)
    return torch.optim.AdamW([vector], lr=1.0, betas=options.betas, eps=options.eps, weight_decay=decay)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clipped", [0.0, 2.0])
@pytest.mark.parametrize(
    "options",
    [
        AdamW(),
        AdamW(betas=(0.5, 0.9), eps=0.1, weight_decay=0.0),
        SGD(weight_decay=0.3),
        SGD(momentum=0.9, weight_decay=0.3),
    ],
)
def test_every_row_steps_as_torch_steps_a_vector(
    options: Union[AdamW, SGD], clipped: float, dtype: torch.dtype
) -> None:
    """Three rows of 5 numbers, 3 of which decay; each row with rates of its own, the last one with two steps behind."""
    torch.manual_seed(0)
    before = 2
    params, grads = torch.randn(3, 5, dtype=dtype), 3 * torch.randn(before + 3, 3, 5, dtype=dtype)
    theirs = []
    for row in range(3):
        pieces = [params[row, :3].clone().requires_grad_(), params[row, 3:].clone().requires_grad_()]
        theirs.append(
            (pieces, [reference(options, pieces[0], options.weight_decay), reference(options, pieces[1], 0.0)])
        )

    def stepped(row: int, grad: torch.Tensor, rate: float) -> None:
        pieces, optimizers = theirs[row]
        pieces[0].grad, pieces[1].grad = grad[:3].clone(), grad[3:].clone()
        if clipped:
            torch.nn.utils.clip_grad_norm_(pieces, clipped)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()

    for step in range(before):
        stepped(2, grads[step, 2], 0.5)
    rows = Rows(3, layout(dtype), options.init(layout(dtype), torch.device("meta")), CPU)
    rows.params[:2] = params[:2]
    rows.params[2] = torch.cat([piece.detach() for piece in theirs[2][0]])
    for name, several in rows.moments.items():
        if name == "step":
            several[2] = float(before)
        else:
            several[2] = torch.cat([each.state[piece][name] for piece, each in zip(*theirs[2])])
    train = TrainOptions(optimizer=options, clip=clipped)
    take = stepping(rows, 3, torch.tensor(RATES, dtype=torch.float64), layout(dtype), train)
    for step, rates in enumerate(RATES):
        for row in range(3):
            stepped(row, grads[before + step, row], rates[row])
        rows.grad[:] = grads[before + step]
        take(step)
    close: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-13}
    for row, (pieces, optimizers) in enumerate(theirs):
        torch.testing.assert_close(rows.params[row], torch.cat([piece.detach() for piece in pieces]), **close)
        for name, several in rows.moments.items():
            if name == "step":
                assert several[row] == 3 + (before if row == 2 else 0)
            else:
                kept = torch.cat([each.state[piece][name] for piece, each in zip(pieces, optimizers)])
                torch.testing.assert_close(several[row], kept, **close)


@dataclass
class Alone:
    """AdamW that cannot step rows."""

    own: AdamW
    lr: float = 0.1

    def init(self, layout: Layout, device: torch.device) -> Moments:
        return self.own.init(layout, device)

    def step(self, params: torch.Tensor, grad: torch.Tensor, state: Moments, lr: float, layout: Layout) -> None:
        self.own.step(params, grad, state, lr, layout)


def test_rows_that_are_stepped_one_by_one_have_the_bits_of_vectors_that_are() -> None:
    torch.manual_seed(0)
    here = Layout({"matrix": (3, 7), "vector": (10,)})
    alone: InnerOptimizer = Alone(AdamW(weight_decay=0.3))
    options = TrainOptions(optimizer=alone, clip=1.0)
    rows = Rows(3, here, alone.init(here, torch.device("meta")), CPU)
    rows.params.normal_()
    vectors = [(row.clone(), alone.init(here, CPU)) for row in rows.params]
    take = stepping(rows, 3, torch.tensor(RATES, dtype=torch.float64), here, options)
    for step, rates in enumerate(RATES):
        rows.grad.normal_()
        for (params, state), grad, rate in zip(vectors, rows.grad.clone(), rates):
            clip(grad, 1.0)
            alone.step(params, grad, state, rate, here)
        take(step)
    for row, (params, state) in enumerate(vectors):
        assert torch.equal(rows.params[row], params)
        assert all(torch.equal(rows.of(row)[name], tensor) for name, tensor in state.items())


def test_only_the_row_that_is_too_long_is_clipped() -> None:
    grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])  # norms 5, 0.5 and 0
    clip_rows(grad, 1.0)
    assert grad[0].tolist() == pytest.approx([0.6, 0.8], rel=1e-6)
    assert torch.equal(grad[1:], torch.tensor([[0.3, 0.4], [0.0, 0.0]]))
    clip_rows(long := torch.tensor([[3.0, 4.0]]), 0.0)
    assert long.tolist() == [[3.0, 4.0]]
