"""Modules as functions of several workers' parameters, and those that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from torch import nn

from halos.data.batch import Batch
from halos.models.gpt_neox import GPTNeoX
from halos.models.neox_stacked import StackedNetwork
from halos.training.options import TrainOptions
from halos.training.stacked.network import Mapped, Unlike, network_of
from halos.training.trainer import Trainer
from tests.keeping import Counting, Drawing, Keeping


class Made(nn.Module):
    """A layer of 3 numbers to one, and a loss of it by a function."""

    def __init__(self, loss: Callable[[Made, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.loss = nn.Linear(3, 1), loss

    def forward(self, batch: Any) -> torch.Tensor:
        return self.loss(self, batch)


class Model:
    """Its module, and perhaps a stacked network of its own."""

    def __init__(self, loss: Callable[[Made, Any], torch.Tensor]) -> None:
        self.loss = loss

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Made(self.loss)


def trainer_of(model: Any, **options: Any) -> Trainer:
    return Trainer(model.build(24, 0), TrainOptions(**options), torch.device("cpu"))


BATCHES = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def squares(module: Made, batch: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = module.layer(batch).square().mean()
    return found


def test_vmap_gives_what_separate_modules_give() -> None:
    model = Model(squares)
    network = network_of(model, trainer_of(model), BATCHES)
    assert isinstance(network, Mapped)
    modules = [model.build(None, seed) for seed in range(3)]
    tensors = {
        name: torch.stack([module.get_parameter(name).detach() for module in modules]).requires_grad_()
        for name in ("layer.weight", "layer.bias")
    }
    batch = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(9))
    losses = network(tensors, batch)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    for row, module in enumerate(modules):
        loss = module(batch[row])
        loss.backward()
        assert float(losses[row].detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
        for name, tensor in tensors.items():
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad[row], module.get_parameter(name).grad)


def test_batches_of_several_tensors_reach_the_module_as_such() -> None:
    def loss(module: Made, batch: Any) -> torch.Tensor:
        x, y = batch
        found: torch.Tensor = (module.layer(x)[:, 0] - y).square().mean()
        return found

    model = Model(loss)
    batches = [Batch(batch, batch.sum(1)) for batch in BATCHES]
    assert isinstance(network_of(model, trainer_of(model), batches), Mapped)


def test_what_the_trainer_has_stays_as_it_was() -> None:
    model = GPTNeoX(hidden_size=16, layers=1, heads=2)
    trainer = trainer_of(model)
    before = trainer.flat.clone()
    batches = [torch.randint(24, (2, 9), generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    assert isinstance(network_of(model, trainer, batches), StackedNetwork)
    assert torch.equal(trainer.flat, before) and not trainer.grad.any()


def test_a_compiled_network_is_compared_too() -> None:
    model = Model(squares)
    trainer = trainer_of(model, compile=True)
    network = network_of(model, trainer, BATCHES)
    assert not isinstance(network, Mapped)


def dropping(module: Made, batch: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(module.layer(batch), 0.5).square().mean()


def looking(module: Made, batch: torch.Tensor) -> torch.Tensor:
    loss = squares(module, batch)
    return loss * 2.0 if float(loss.detach()) > 1.0 else loss


def remembering(module: Made, batch: torch.Tensor) -> torch.Tensor:
    """A weight kept beside the parameters, which no function of these can put in its place."""
    kept = module.__dict__.setdefault("kept", module.layer.weight)
    found: torch.Tensor = (batch @ kept.T + module.layer.bias).square().mean()
    return found


def padded(module: Made, batch: torch.Tensor) -> torch.Tensor:
    """The layer's three weights, looked up by numbers that are never the one of padding."""
    indices = 1 + (batch > 0).long()  # 1 and 2
    return nn.functional.embedding(indices, module.layer.weight.T, padding_idx=0).square().mean() + module.layer.bias[0]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Keeping(), "draws from a generator of its own"),
        (Counting(), "changes its buffers"),
        (Drawing(), "draws random numbers"),
        (Model(dropping), "draws random numbers"),
        (Model(looking), "cannot be computed for several workers at once (RuntimeError"),
        (Model(remembering), "gives other gradients"),
        (Model(padded), "an embedding with a padding_idx"),
    ],
)
def test_what_cannot_be_stacked_is_said(model: Any, why: str) -> None:
    batches = BATCHES if isinstance(model, Model) else [torch.arange(18).reshape(2, 9) for _ in range(2)]
    with pytest.raises(Unlike) as raised:
        network_of(model, trainer_of(model), batches)
    assert why in str(raised.value)


def test_a_models_own_network_is_compared_with_its_module() -> None:
    class Wrong(Model):
        def stacked(self, module: nn.Module) -> Any:
            return lambda tensors, batch: 1.01 * Mapped(module)(tensors, batch)

    model = Wrong(squares)
    with pytest.raises(Unlike, match="gives other gradients"):
        network_of(model, trainer_of(model), BATCHES)
