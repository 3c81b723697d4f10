"""One clipped optimizer step of several workers: what torch.optim does to vectors, done to the rows of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from halos.training.options import OptimizerOptions, TrainOptions


def columns(
    options: OptimizerOptions, rates: Sequence[Sequence[float]], counts: Sequence[float], like: torch.Tensor
) -> torch.Tensor:
    """Return what each row's next steps need to know, [steps, k, rows, 1], of the device and type of `like`.

    From `rates`, learning rates [steps, rows], and `counts`, how often each row has stepped before.
    """
    lr = torch.tensor(rates, dtype=torch.float64)
    if options.name == "sgd":
        return lr[:, None, :, None].to(like)
    step = torch.tensor(counts, dtype=torch.float64) + torch.arange(1, len(lr) + 1, dtype=torch.float64)[:, None]
    (one, two), decay = options.betas, 1.0 - lr * options.weight_decay
    return torch.stack([decay, lr / (1.0 - one**step), (1.0 - two**step).sqrt()], 1)[..., None].to(like)


def clip(grad: torch.Tensor, most: float) -> None:
    """Scale down the rows of `grad` whose norm is above `most`, as `Trainer` does; 0: none."""
    if most > 0.0:
        norms = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        grad.mul_(torch.clamp(most / (norms + 1e-6), max=1.0))


def descend(
    params: torch.Tensor,
    grad: torch.Tensor,
    moments: dict[str, torch.Tensor],
    column: torch.Tensor,
    decayed: int,
    options: TrainOptions,
) -> None:
    """Take one step of each row of `params` along that of `grad`, clipped; `grad` is anything afterwards.

    All matrices are [rows, P]; `column` is one of `columns`. Weights decay in the first `decayed` numbers of a row.
    SGD and AdamW (arXiv 1711.05101, Algorithm 2) in the order of operations of torch.optim.
    """
    own = options.optimizer
    clip(grad, options.clip)
    if own.name == "sgd":
        (lr,) = column
        if own.weight_decay:
            grad[:, :decayed].add_(params[:, :decayed], alpha=own.weight_decay)
        if own.momentum:
            step = moments["momentum_buffer"].mul_(own.momentum).add_(grad)
            torch.mul(step, lr, out=grad)
        else:
            grad.mul_(lr)
        params.sub_(grad)
    else:
        decay, size, bias = column
        one, two = own.betas
        if own.weight_decay:
            params[:, :decayed].mul_(decay)
        first = moments["exp_avg"].lerp_(grad, 1.0 - one)
        second = moments["exp_avg_sq"].mul_(two).addcmul_(grad, grad, value=1.0 - two)
        torch.sqrt(second, out=grad)  # from here on only room
        grad.div_(bias).add_(own.eps)
        torch.div(first, grad, out=grad)
        params.sub_(grad.mul_(size))
