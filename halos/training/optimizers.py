"""Inner optimizers: what a local step makes of a gradient, and what a worker keeps for the next one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional, Protocol, TypeAlias

import torch

from halos.errors import require
from halos.hooks import Register, hookimpl
from halos.values.params import Layout

Moments: TypeAlias = "dict[str, torch.Tensor]"  # a worker's state by name: vectors [n], n ≤ P, and numbers []


class InnerOptimizer(Protocol):
    """Takes the local steps of all workers, on the flat vectors [P] of a layout: tensors are slices of them.

    It holds options and no state: what a worker keeps from step to step is in tensors by name, which are the worker's,
    for the whole run or (`train.optimizer_state: new`) for a job. These are in checkpoints and never sent. Learning
    rates come from `train.schedule`, gradients clipped by `train.clip`; a step that fp16's loss scaling leaves out does
    not come here. What it draws, it draws in `init`, or from numbers in its state.
    """

    lr: float  # the largest learning rate, which the schedule scales

    def init(self, layout: Layout, device: torch.device) -> Moments:
        """Return what is kept before the first step, new tensors on `device` (`meta`, for their sizes alone).

        By name, vectors [n] of the layout's type, n ≤ P, and numbers [] of any type. Names and shapes stay for ever.
        """
        ...

    def step(self, params: torch.Tensor, grad: torch.Tensor, state: Moments, lr: float, layout: Layout) -> None:
        """Take one step of rate `lr`: change `params` [P] and the tensors of `state` in place.

        `grad` [P], in the same order, may be anything afterwards. A function of its arguments.
        """
        ...


@dataclass
class AdamW:
    """AdamW (arXiv 1711.05101, Algorithm 2), by PyTorch's fused kernel."""

    lr: float = 1.0e-3  # the largest learning rate
    betas: tuple[float, float] = (0.9, 0.95)  # of the means of gradients and of their squares
    eps: float = 1.0e-8  # beside the root of the mean square
    weight_decay: float = 0.1  # on tensors with two or more dimensions

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        require(0.0 < self.eps < math.inf, "eps", self.eps, "a positive, finite number")
        check_decay(self.weight_decay)

    def init(self, layout: Layout, device: torch.device) -> Moments:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=device),  # there, as the kernel needs it
            "exp_avg": torch.zeros(layout.size, dtype=layout.dtype, device=device),
            "exp_avg_sq": torch.zeros(layout.size, dtype=layout.dtype, device=device),
        }

    def step(self, params: torch.Tensor, grad: torch.Tensor, state: Moments, lr: float, layout: Layout) -> None:
        self.step_unless(params, grad, state, lr, layout, None)

    def step_unless(
        self,
        params: torch.Tensor,
        grad: torch.Tensor,
        state: Moments,
        lr: float,
        layout: Layout,
        infinite: Optional[torch.Tensor],
    ) -> None:
        first, second, step = state["exp_avg"], state["exp_avg_sq"], state["step"]
        step.add_(1.0)
        for piece, decay in decaying(layout, self.weight_decay):
            torch._fused_adamw_(
                [params[piece]], [grad[piece]], [first[piece]], [second[piece]], [], [step],
                lr=lr, beta1=self.betas[0], beta2=self.betas[1], weight_decay=decay, eps=self.eps,
                amsgrad=False, maximize=False, found_inf=infinite,
            )  # fmt: skip
        if infinite is not None:
            step.sub_(infinite)

    def step_rows(
        self, params: torch.Tensor, grad: torch.Tensor, state: Moments, rates: torch.Tensor, layout: Layout
    ) -> Callable[[int], None]:
        first, second, step, (one, two) = state["exp_avg"], state["exp_avg_sq"], state["step"], self.betas
        decayed = params[:, : layout.decayed]
        counts = step.double().cpu() + torch.arange(1, len(rates) + 1, dtype=torch.float64)[:, None]  # [steps, rows]
        step.add_(len(rates))
        columns = (1.0 - rates * self.weight_decay, rates / (1.0 - one**counts), (1.0 - two**counts).sqrt())
        table = torch.stack(columns, 1)[..., None].to(first)  # [steps, 3, rows, 1]

        def take(at: int) -> None:
            decay, size, bias = table[at]
            if self.weight_decay:
                decayed.mul_(decay)
            first.lerp_(grad, 1.0 - one)
            second.mul_(two).addcmul_(grad, grad, value=1.0 - two)
            torch.sqrt(second, out=grad)  # from here on only room
            grad.div_(bias).add_(self.eps)
            torch.div(first, grad, out=grad)
            params.sub_(grad.mul_(size))

        return take

    def second_moments(self, state: Moments) -> Optional[torch.Tensor]:
        steps = float(state["step"])
        return state["exp_avg_sq"] / (1.0 - self.betas[1] ** steps) if steps else None


@dataclass
class SGD:
    """Stochastic gradient descent, with momentum if wanted: m ← μ m + g; θ ← θ − lr m. Decay is part of g."""

    lr: float = 1.0e-3  # the largest learning rate
    momentum: float = 0.0  # μ; 0: nothing is kept
    weight_decay: float = 0.1  # on tensors with two or more dimensions

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")
        check_decay(self.weight_decay)

    def init(self, layout: Layout, device: torch.device) -> Moments:
        if not self.momentum:
            return {}
        return {"momentum_buffer": torch.zeros(layout.size, dtype=layout.dtype, device=device)}

    def step(self, params: torch.Tensor, grad: torch.Tensor, state: Moments, lr: float, layout: Layout) -> None:
        for piece, decay in decaying(layout, self.weight_decay):
            along = grad[piece]
            if decay:
                along.add_(params[piece], alpha=decay)
            if self.momentum:
                along = state["momentum_buffer"][piece].mul_(self.momentum).add_(along)
            params[piece].add_(along, alpha=-lr)

    def step_rows(
        self, params: torch.Tensor, grad: torch.Tensor, state: Moments, rates: torch.Tensor, layout: Layout
    ) -> Callable[[int], None]:
        table = rates[..., None].to(params)  # [steps, rows, 1]
        decayed = slice(0, layout.decayed)

        def take(at: int) -> None:
            if self.weight_decay:
                grad[:, decayed].add_(params[:, decayed], alpha=self.weight_decay)
            if self.momentum:
                torch.mul(state["momentum_buffer"].mul_(self.momentum).add_(grad), table[at], out=grad)
            else:
                grad.mul_(table[at])
            params.sub_(grad)

        return take


def decaying(layout: Layout, decay: float) -> Iterator[tuple[slice, float]]:
    """Yield the slices of a layout's vectors that decay, by `decay`, and that do not; none that is empty."""
    if layout.decayed:
        yield slice(0, layout.decayed), decay
    if layout.decayed < layout.size:
        yield slice(layout.decayed, layout.size), 0.0


def numbers_kept(optimizer: InnerOptimizer, layout: Layout) -> int:
    """Return how many numbers a worker keeps by an optimizer, in vectors."""
    return sum(tensor.numel() for tensor in optimizer.init(layout, torch.device("meta")).values() if tensor.dim())


def check_rate(lr: float) -> None:
    """Raise ConfigError for a learning rate that is none."""
    require(0.0 <= lr < math.inf, "lr", lr, "zero or a positive, finite number")
    require(lr <= 1e30, "lr", lr, "at most 1e30")


def check_decay(weight_decay: float) -> None:
    """Raise ConfigError for a weight decay that is none."""
    require(0.0 <= weight_decay < math.inf, "weight_decay", weight_decay, "zero or a positive, finite number")
    require(weight_decay <= 1e30, "weight_decay", weight_decay, "at most 1e30")


@hookimpl
def register_inner_optimizers(register: Register) -> None:
    register("adamw", AdamW)
    register("sgd", SGD)
