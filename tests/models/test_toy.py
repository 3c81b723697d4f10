"""Toy models, by numbers a reader can check; and the model that is only a size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from halos.errors import ConfigError
from halos.models.sized import Sized
from halos.models.toy import LinearRegression, Quadratic
from halos.values.params import Layout


def tokens(samples: int, *, length: int = 9, below: int = 30, seed: int = 0) -> Tensor:
    return torch.randint(0, below, (samples, length), generator=torch.Generator().manual_seed(seed))


def descend(module: nn.Module, batch: Tensor, lr: float, steps: int) -> None:
    for _ in range(steps):
        module.zero_grad()
        module(batch).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(parameter.grad, alpha=lr)


def test_the_bowl_is_half_the_sum_of_curvature_times_squared_distance() -> None:
    bowl = Quadratic(size=2, curvature=[2.0, 6.0], optimum=[1.0, -1.0], start=[4.0, 0.0]).build(None, seed=0)
    loss = bowl(tokens(1))
    assert loss.item() == 12.0  # ½ (2 · 3² + 6 · 1²)
    loss.backward()
    assert bowl.theta.grad.tolist() == [6.0, 6.0]  # 2 · 3, 6 · 1


def test_one_number_stands_for_all() -> None:
    bowl = Quadratic(size=3, curvature=2, optimum=1, start=0.0).build(None, seed=0)
    assert bowl(tokens(1)).item() == 3.0
    assert bowl.optimum.tolist() == [1.0, 1.0, 1.0]


def test_gradient_descent_arrives_at_the_bottom_of_the_bowl() -> None:
    bowl = Quadratic(size=2, curvature=[1.0, 4.0], optimum=[3.0, -2.0]).build(None, seed=0)
    descend(bowl, tokens(1), lr=0.2, steps=100)
    torch.testing.assert_close(bowl.theta.detach(), bowl.optimum, atol=1e-6, rtol=0)


def test_without_noise_the_bowl_does_not_see_the_data() -> None:
    bowl = Quadratic().build(None, seed=0)
    assert bowl(tokens(4, seed=1)).item() == bowl(tokens(2, seed=2)).item() == 1.0


def gradients(bowl: nn.Module, batches: list[Tensor]) -> Tensor:
    found = []
    for batch in batches:
        bowl.zero_grad()
        bowl(batch).backward()
        found.append(bowl.theta.grad.clone())
    return torch.stack(found)


def test_noise_is_a_function_of_the_samples_and_averages_out() -> None:
    bowl = Quadratic(size=2, curvature=2.0, optimum=1.0, noise=0.5).build(None, seed=0)
    one, same, other = gradients(bowl, [tokens(1, seed=1), tokens(1, seed=1), tokens(1, seed=2)])
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    single = gradients(bowl, [tokens(1, seed=seed) for seed in range(400)])
    torch.testing.assert_close(single.mean(0), torch.tensor([-2.0, -2.0]), atol=0.1, rtol=0)  # 4 standard errors
    torch.testing.assert_close(single.std(0), torch.tensor([0.5, 0.5]), atol=0.05, rtol=0)
    assert torch.corrcoef(single.T)[0, 1].abs() < 0.2
    in_batches = gradients(bowl, [tokens(16, seed=seed) for seed in range(150)])
    torch.testing.assert_close(in_batches.std(0), torch.tensor([0.125, 0.125]), atol=0.03, rtol=0)  # 0.5 / √16


def test_the_order_of_the_tokens_matters_to_the_noise_that_of_the_samples_does_not() -> None:
    bowl = Quadratic(noise=1.0).build(None, seed=0)
    batch = tokens(4)
    shuffled, turned, as_it_is = gradients(bowl, [batch.flip(0), batch.flip(1), batch])
    torch.testing.assert_close(shuffled, as_it_is)
    assert not torch.allclose(turned, as_it_is)


def test_the_bowl_is_evaluated_without_noise() -> None:
    bowl = Quadratic(noise=1.0).build(None, seed=0)
    assert bowl(tokens(1)).item() != 1.0
    assert bowl.eval()(tokens(1)).item() == 1.0


def test_regression_features_are_spread_evenly_and_targets_lie_on_the_known_plane() -> None:
    module = LinearRegression(features=3, optimum=[1.0, -2.0, 0.5], dtype="float64").build(None, seed=0)
    x, y = module.examples(tokens(4000, length=33, below=500))
    torch.testing.assert_close(y, x[:, 0] - 2.0 * x[:, 1] + 0.5 * x[:, 2])
    torch.testing.assert_close(x.T @ x / 4000, torch.eye(3, dtype=torch.float64), atol=0.1, rtol=0)


def test_the_regression_loss_and_gradient_are_those_of_least_squares() -> None:
    module = LinearRegression(features=2, optimum=[1.0, 2.0], start=[3.0, 3.0]).build(None, seed=0)
    batch = tokens(5)
    x, y = module.examples(batch)
    residual = x @ torch.tensor([3.0, 3.0]) - y
    loss = module(batch)
    torch.testing.assert_close(loss, (residual**2).sum() / 10)
    loss.backward()
    torch.testing.assert_close(module.weight.grad, (residual @ x / 5)[None])


def test_gradient_descent_finds_the_known_weights() -> None:
    module = LinearRegression(features=4, optimum=[1.0, -1.0, 2.0, 0.0]).build(None, seed=0)
    descend(module, tokens(64), lr=0.3, steps=200)
    torch.testing.assert_close(module.weight.detach(), module.optimum, atol=1e-4, rtol=0)
    assert module(tokens(64, seed=9)).item() < 1e-7  # on other samples too


def test_noisy_targets_leave_half_their_variance_at_the_optimum() -> None:
    module = LinearRegression(features=2, optimum=1.0, start=1.0, noise=0.2).build(None, seed=0)
    assert module(tokens(4000)).item() == pytest.approx(0.02, rel=0.1)


def test_weight_decay_applies_to_the_regression_and_not_to_the_bowl() -> None:
    assert Layout(Quadratic(size=5).shapes(None)).decayed == 0
    assert Layout(LinearRegression(features=5).shapes(None)).decayed == 5


@pytest.mark.parametrize("config", [Quadratic(size=3, noise=0.1), LinearRegression(features=3, noise=0.1)])
def test_toys_keep_the_models_contract(config: Any) -> None:
    state = torch.get_rng_state()
    module = config.build(1000, seed=0)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert shapes == config.shapes(1000) == config.shapes(None)
    assert set(module.state_dict()) == set(shapes)
    loss = module(tokens(2))
    assert loss.shape == () and loss.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("config", [Quadratic(noise=0.1, dtype="float64"), LinearRegression(dtype="float64")])
def test_float64_is_float64_throughout(config: Any) -> None:
    module = config.build(None, seed=0)
    assert module(tokens(2)).dtype == torch.float64
    assert all(parameter.dtype == torch.float64 for parameter in module.parameters())


@pytest.mark.parametrize("config", [Quadratic(noise=0.3), LinearRegression(noise=0.3)])
def test_toys_can_be_stacked_by_vmap(config: Any) -> None:
    module = config.build(None, seed=0)
    ((name, parameter),) = module.named_parameters()
    stacked = {name: torch.stack([parameter.detach() + i for i in range(3)])}
    batches = torch.stack([tokens(4, seed=i) for i in range(3)])

    def loss_of(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(module, parameters, (batch,))

    together = vmap(grad(loss_of))(stacked, batches)[name]
    for i in range(3):
        torch.testing.assert_close(together[i], grad(loss_of)({name: stacked[name][i]}, batches[i])[name])


@pytest.mark.parametrize(
    ("cls", "fields", "problem"),
    [
        (Quadratic, {"size": 0}, "size: 0 is not a positive number"),
        (Quadratic, {"curvature": [1.0, 2.0, 3.0]}, r"curvature: \[1.0, 2.0, 3.0\] is not a number or a list of 2"),
        (Quadratic, {"curvature": [1.0, -2.0]}, r"curvature: \[1.0, -2.0\] is not non-negative"),
        (Quadratic, {"optimum": "far"}, "optimum: 'far' is not a number or a list of 2"),
        (Quadratic, {"start": float("nan")}, "start: nan is not a number or a list of 2"),
        (Quadratic, {"noise": -1.0}, "noise: -1.0 is not a standard deviation"),
        (Quadratic, {"dtype": "bfloat16"}, "dtype: 'bfloat16' is not one of float32, float64"),
        (LinearRegression, {"features": 0}, "features: 0 is not a positive number"),
        (LinearRegression, {"optimum": [1.0]}, r"optimum: \[1.0\] is not a number or a list of 8"),
        (LinearRegression, {"wire_bytes": 0}, "wire_bytes: 0 is not a positive number"),
        (Sized, {"parameters": 0}, "parameters: 0 is not a positive number"),
        (Sized, {"parameters": 8, "wire_bytes": 0}, "wire_bytes: 0 is not a positive number"),
    ],
)
def test_what_cannot_be_is_refused_with_field_and_value(cls: Any, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        cls(**fields)
