"""Outer optimizers: numbers worked out by hand, torch's own optimizers, and their identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos.errors import ConfigError
from halos.rules.merge import SGD, Adam, DelayedNesterov, MergeRule, Nesterov
from halos.values.params import Layout, Params

LAYOUT = Layout({"theta": (5,)}, torch.float64)


def params(values: torch.Tensor) -> Params:
    return Params(LAYOUT, values)


def trajectory(rule: MergeRule, deltas: list[torch.Tensor], start: torch.Tensor) -> list[torch.Tensor]:
    theta, path = params(start), []
    state = rule.init(theta)
    for delta in deltas:
        theta, state = rule.step(theta, params(delta), state)
        assert theta.flat is not None
        path.append(theta.flat)
    return path


def some(count: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(5, generator=generator, dtype=torch.float64),
        [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(count)],
    )


def one(rule: MergeRule, deltas: list[float]) -> list[float]:
    """A one-parameter problem from θ = 0, as if all five were it."""
    full = [torch.full((5,), delta, dtype=torch.float64) for delta in deltas]
    return [float(theta[0]) for theta in trajectory(rule, full, torch.zeros(5, dtype=torch.float64))]


def test_sgd_by_hand() -> None:
    assert one(SGD(lr=0.5), [1.0, 2.0]) == [-0.5, -1.5]


def test_nesterov_by_hand() -> None:
    # v = 1, 2.5; θ = -0.1 (1 + 0.5·1) = -0.15; then -0.15 - 0.1 (2 + 0.5·2.5) = -0.475
    assert one(Nesterov(lr=0.1, momentum=0.5), [1.0, 2.0]) == pytest.approx([-0.15, -0.475])


def test_delayed_nesterov_by_hand() -> None:
    # N = 2, β = 0.5, c = 0, lr 1: 1/2; then m = (1+2)/2 = 1.5, step 0.75 + 1; then 3/2; then m = 0.75 + 3.5 = 4.25
    # and the step 2.125 + 2
    path = one(DelayedNesterov(lr=1.0, beta=0.5, buffer=2), [1.0, 2.0, 3.0, 4.0])
    assert path == pytest.approx([-0.5, -2.25, -3.75, -7.875])


def test_delayed_nesterov_with_activation_by_hand() -> None:
    # c = 0.5, N = 2, β = 0.5, lr 1: m starts at 0, so 1/2; then m = 1.5 and (1 − 1 + 0.5)·0.5·1.5 + 1 = 1.375;
    # then c β m + 3/2 = 0.375 + 1.5
    path = one(DelayedNesterov(lr=1.0, beta=0.5, buffer=2, activation=0.5), [1.0, 2.0, 3.0])
    assert path == pytest.approx([-0.5, -1.875, -3.75])


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (SGD(0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
        (Nesterov(0.7, 0.9), lambda p: torch.optim.SGD(p, lr=0.7, momentum=0.9, nesterov=True)),
        (Adam(0.01, (0.9, 0.99), 1e-8), lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.99), eps=1e-8)),
    ],
)
def test_rules_equal_torchs_own_optimizers(rule: MergeRule, reference: Any) -> None:
    start, deltas = some(20)
    parameter = torch.nn.Parameter(start.clone())
    optimizer = reference([parameter])
    for ours, delta in zip(trajectory(rule, deltas, start), deltas):
        parameter.grad = delta.clone()
        optimizer.step()
        torch.testing.assert_close(ours, parameter.detach(), rtol=1e-12, atol=1e-12)


def test_nesterov_without_momentum_is_sgd() -> None:
    start, deltas = some(20)
    for a, b in zip(trajectory(Nesterov(0.7, 0.0), deltas, start), trajectory(SGD(0.7), deltas, start)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("activation", [0.0, 0.3, 1.0])
def test_delayed_nesterov_of_one_is_nesterov_whatever_the_activation(activation: float) -> None:
    start, deltas = some(20)
    delayed = trajectory(DelayedNesterov(0.7, 0.9, 1, activation), deltas, start)
    for a, b in zip(delayed, trajectory(Nesterov(0.7, 0.9), deltas, start)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("buffer", [1, 3, 8])
def test_delayed_nesterov_without_momentum_is_sgd_at_a_share_of_the_rate(buffer: int) -> None:
    start, deltas = some(20)
    delayed = trajectory(DelayedNesterov(0.7, 0.0, buffer), deltas, start)
    for a, b in zip(delayed, trajectory(SGD(0.7 / buffer), deltas, start)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [SGD(), Nesterov(), DelayedNesterov(buffer=2), Adam()])
def test_a_step_modifies_nothing_and_costs_no_kernel_on_hollow_parameters(rule: MergeRule) -> None:
    start, deltas = some(4)
    theta, kept = params(start.clone()), start.clone()
    state = rule.init(theta)
    once, _ = rule.step(theta, params(deltas[0]), state)
    again, _ = rule.step(theta, params(deltas[0]), state)
    assert torch.equal(once.flat, again.flat)  # type: ignore[arg-type]
    assert torch.equal(theta.flat, kept)  # type: ignore[arg-type]
    hollow = Params(LAYOUT, None)
    moved, _ = rule.step(hollow, hollow, rule.init(hollow))
    assert moved.hollow


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr=-1.0), "lr: -1.0 is not zero or a positive"),
        (lambda: Nesterov(momentum=1.0), r"momentum: 1.0 is not in \[0, 1\)"),
        (lambda: Nesterov(lr=float("nan")), "lr: nan"),
        (lambda: DelayedNesterov(buffer=0), "buffer: 0 is not a positive number of updates"),
        (lambda: DelayedNesterov(beta=-0.1), "beta: -0.1"),
        (lambda: DelayedNesterov(activation=2.0), "activation: 2.0"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: Adam(eps=0.0), "eps: 0.0"),
    ],
)
def test_bad_hyper_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
