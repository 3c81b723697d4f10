"""The stacked network against as many networks one by one."""

from __future__ import annotations

import pytest
import torch

from halos.models.gpt_neox import GPTNeoX
from halos.models.neox_stacked import Gather

VOCABULARY = 24


@pytest.mark.parametrize("changes", [{}, {"parallel_residual": False}, {"rotary_pct": 0.0}, {"layer_norm_eps": 0.1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_those_of_separate_networks(changes: dict[str, float], dtype: torch.dtype) -> None:
    model = GPTNeoX(hidden_size=16, layers=2, heads=2, initializer_range=0.3, **changes)  # type: ignore[arg-type]
    networks = [model.build(VOCABULARY, seed).to(dtype) for seed in range(3)]
    batch = torch.randint(VOCABULARY, (3, 4, 9), generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in networks[0].named_parameters()]
    tensors = {
        name: torch.stack([network.get_parameter(name).detach() for network in networks]).requires_grad_()
        for name in names
    }
    losses = model.stacked(networks[0])(tensors, batch)
    (losses * torch.tensor([1.0, 2.0, 3.0])).sum().backward()  # type: ignore[no-untyped-call]
    close = 1e-5 if dtype == torch.float32 else 1e-12
    for row, network in enumerate(networks):
        loss = network(batch[row])
        loss.backward()
        assert float(losses[row].detach()) == pytest.approx(float(loss.detach()), rel=close)
        for name in names:
            grad, own = tensors[name].grad, network.get_parameter(name).grad
            assert grad is not None and own is not None
            torch.testing.assert_close(grad[row] / (row + 1), own, rtol=close, atol=close)


def test_a_table_is_read_and_its_gradient_summed_by_rows() -> None:
    table = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]], requires_grad=True)  # two workers, two rows of one number
    found = Gather.apply(table, torch.tensor([[1, 1, 0], [0, 0, 0]]))  # type: ignore[no-untyped-call]
    assert found.tolist() == [[[2.0], [2.0], [1.0]], [[3.0], [3.0], [3.0]]]
    (found * torch.tensor([1.0, 10.0, 100.0])[:, None]).sum().backward()
    assert table.grad is not None and table.grad.tolist() == [[[100.0], [11.0]], [[111.0], [0.0]]]


def test_many_logits_are_cut_into_pieces_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPTNeoX(hidden_size=16, layers=1, heads=2)
    network = model.build(VOCABULARY, 0)
    tensors = {name: torch.stack([each.detach()] * 5) for name, each in network.named_parameters()}
    batch = torch.randint(VOCABULARY, (5, 2, 9), generator=torch.Generator().manual_seed(0))
    whole = model.stacked(network)(tensors, batch)
    monkeypatch.setattr("halos.models.neox_stacked.CACHED", 2 * 16 * VOCABULARY)  # of two workers
    torch.testing.assert_close(model.stacked(network)(tensors, batch), whole)
