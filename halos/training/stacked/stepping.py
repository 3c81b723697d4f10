"""Clipped steps of several workers, each a row of matrices: all at once if the optimizer can, or one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from halos.training.options import TrainOptions
from halos.training.stacked.rows import Rows
from halos.training.trainer import clip
from halos.values.params import Layout


def stepping(
    rows: Rows, count: int, rates: torch.Tensor, layout: Layout, options: TrainOptions
) -> Callable[[int], None]:
    """Return what takes the steps that follow of the first `count` rows: first step 0, then step 1, and so on.

    `rates` are learning rates, fp64 [steps, rows]. Gradients are anything afterwards.
    """
    params, grad, optimizer = rows.params[:count], rows.grad[:count], options.optimizer
    if at_once := getattr(optimizer, "step_rows", None):
        take: Callable[[int], None] = at_once(params, grad, rows.first(count), rates, layout)

        def together(at: int) -> None:
            clip_rows(grad, options.clip)
            take(at)

        return together
    moments, listed = [rows.of(row) for row in range(count)], rates.tolist()

    def one_by_one(at: int) -> None:
        for row, kept in enumerate(moments):
            if options.clip > 0.0:
                clip(grad[row], options.clip)
            optimizer.step(params[row], grad[row], kept, listed[at][row], layout)

    return one_by_one


def clip_rows(grad: torch.Tensor, most: float) -> None:
    """Scale down the rows of `grad` whose norm is above `most`, as `Trainer` does; 0: none."""
    if most > 0.0:
        norms = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        grad.mul_(torch.clamp(most / (norms + 1e-6), max=1.0))
