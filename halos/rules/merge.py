"""Merge rules: outer optimizers, each a set of hyper-parameters and two pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, Protocol

import torch
from msgspec import Struct

from halos.errors import require
from halos.hooks import Register, hookimpl
from halos.values.params import Params


class MergeRule(Protocol):
    """`init` gives the state, `step` the next parameters and state; neither modifies what it is given.

    A policy may keep several states of one rule (one per server, replica or fragment), and passes
    parameters or parts of them alike. A method `momentum_of(state)` may return the momentum in a state, for those who
    measure; a method `start(params, state)` what workers that train on `params` are to begin from (see `start_of`); a
    method `refuses(staleness)` whether it would rather not merge what is so old (see `refused_by`).
    """

    def init(self, params: Params) -> Any:
        """Return the state before the first step."""
        ...

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        """Return `params` with the pseudo-gradient `delta` merged in, and the next state.

        `delta` was computed from `base` (None: unknown), `staleness` versions ago; subtracting it goes downhill.
        """
        ...


def start_of(rule: MergeRule, params: Params, state: Any) -> Params:
    """Return what a worker that trains on `params` begins from: what the rule's `start` says, or `params` themselves.

    To be asked by a policy, with the state that goes with `params`, whenever it gives a worker a model that `rule`
    steps. Differences are counted from where the worker began; staleness is that of `params`.
    """
    start: Optional[Callable[[Params, Any], Params]] = getattr(rule, "start", None)
    begun = params if start is None else start(params, state)
    if not begun.versions:
        begun.versions = params.versions
    return begun


def refused_by(rule: MergeRule, staleness: int) -> bool:
    """Return whether an arrival `staleness` versions old is not to be merged at all, by what the rule's `refuses` says.

    To be asked by a policy that merges arrivals one by one, before the step. What is refused goes to `sim.drop`:
    parameters, state and version stay as they are. (To merge zeros instead would let a momentum coast.)
    """
    refuses: Optional[Callable[[int], bool]] = getattr(rule, "refuses", None)
    return refuses is not None and refuses(staleness)


@dataclass(frozen=True)
class SGD:
    """θ ← θ − lr Δ. With lr 1 the mean of the workers' models, as in FedAvg (arXiv 1602.05629)."""

    lr: float = 1.0  # the outer learning rate

    def __post_init__(self) -> None:
        _check_lr(self.lr)

    def init(self, params: Params) -> None:
        return None

    def step(
        self, params: Params, delta: Params, state: None, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, None]:
        return Params.combine(lambda p, d: torch.add(p, d, alpha=-self.lr), params, delta), None


@dataclass(frozen=True)
class Nesterov:
    """v ← μ v + Δ; θ ← θ − lr (Δ + μ v): the outer optimizer of DiLoCo (arXiv 2311.08105, Algorithm 1)."""

    lr: float = 0.7  # the outer learning rate
    momentum: float = 0.9  # μ, below 1

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")

    def init(self, params: Params) -> Params:
        return params.zeros()

    def step(
        self, params: Params, delta: Params, state: Params, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Params]:
        velocity = Params.combine(lambda v, d: torch.add(v * self.momentum, d), state, delta)
        moved = Params.combine(
            lambda p, d, v: torch.add(p, torch.add(d, v, alpha=self.momentum), alpha=-self.lr), params, delta, velocity
        )
        return moved, velocity

    def momentum_of(self, state: Params) -> Params:
        return state


class DelayedState(Struct, frozen=True):
    """Delayed Nesterov's momentum m, the sum D of pseudo-gradients since it last moved, and steps so far."""

    momentum: Params
    gathered: Params
    count: int = 0


@dataclass(frozen=True)
class DelayedNesterov:
    """Momentum that moves only every N-th pseudo-gradient (arXiv 2401.09135, Algorithm 3).

    D ← D + Δ; every N-th time m ← β m + D/N, θ ← θ − lr [(1 − cN + c) β m + Δ/N], D ← 0;
    otherwise θ ← θ − lr [c β m + Δ/N]. `lr` is the one applied (upstream's scripts pass theirs
    times N, so that one update moves by their lr · Δ).
    """

    lr: float = 0.7  # as applied: one Δ moves by lr/N
    beta: float = 0.9  # β, of the momentum
    buffer: int = 1  # N, pseudo-gradients per step of the momentum
    activation: float = 0.0  # c: how much of the momentum acts in between; 0 to 1

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        require(0.0 <= self.beta < 1.0, "beta", self.beta, "in [0, 1)")
        require(self.buffer >= 1, "buffer", self.buffer, "a positive number of updates")
        require(0.0 <= self.activation <= 1.0, "activation", self.activation, "in [0, 1]")

    def init(self, params: Params) -> DelayedState:
        zeros = params.zeros()
        return DelayedState(zeros, zeros)

    def step(
        self, params: Params, delta: Params, state: DelayedState, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, DelayedState]:
        n, c = self.buffer, self.activation
        gathered = state.gathered + delta
        momentum, strength = state.momentum, c * self.beta
        if (state.count + 1) % n == 0:
            momentum = Params.combine(lambda m, d: torch.add(m * self.beta, d / n), momentum, gathered)
            gathered, strength = gathered.zeros(), (1 - c * n + c) * self.beta
        if strength == 0.0:
            moved = Params.combine(lambda p, d: torch.add(p, d / n, alpha=-self.lr), params, delta)
        else:
            moved = Params.combine(
                lambda p, d, m: torch.add(p, torch.add(d / n, m, alpha=strength), alpha=-self.lr),
                params,
                delta,
                momentum,
            )
        return moved, DelayedState(momentum, gathered, state.count + 1)

    def momentum_of(self, state: DelayedState) -> Params:
        return state.momentum


class AdamState(Struct, frozen=True):
    """Adam's first and second moments, and steps so far."""

    first: Params
    second: Params
    count: int = 0


@dataclass(frozen=True)
class Adam:
    """Adam on pseudo-gradients, bias-corrected: FedAdam (arXiv 2003.00295, Algorithm 2) with Adam's own correction."""

    lr: float = 1.0e-3  # the outer learning rate
    betas: tuple[float, float] = (0.9, 0.99)  # of the first and the second moment
    eps: float = 1.0e-8  # added to the root of the second

    def __post_init__(self) -> None:
        _check_lr(self.lr)
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        require(self.eps > 0.0, "eps", self.eps, "a positive number")

    def init(self, params: Params) -> AdamState:
        zeros = params.zeros()
        return AdamState(zeros, zeros)

    def step(
        self, params: Params, delta: Params, state: AdamState, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, AdamState]:
        count = state.count + 1
        b1, b2 = self.betas
        first = Params.combine(lambda m, d: torch.lerp(m, d, 1 - b1), state.first, delta)
        second = Params.combine(lambda v, d: torch.addcmul(v * b2, d, d, value=1 - b2), state.second, delta)
        rate = self.lr / (1 - b1**count)
        correction = 1 - b2**count
        moved = Params.combine(
            lambda p, m, v: torch.addcdiv(p, m, (v / correction).sqrt_().add_(self.eps), value=-rate),
            params,
            first,
            second,
        )
        return moved, AdamState(first, second, count)

    def momentum_of(self, state: AdamState) -> Params:
        return state.first


def _check_lr(lr: float) -> None:
    require(0.0 <= lr < float("inf"), "lr", lr, "zero or a positive, finite number")
    require(lr <= 1e30, "lr", lr, "a learning rate: fp32 holds no such numbers")


@hookimpl
def register_merge_rules(register: Register) -> None:
    register("sgd", SGD)
    register("nesterov", Nesterov)
    register("delayed_nesterov", DelayedNesterov)
    register("adam", Adam)
