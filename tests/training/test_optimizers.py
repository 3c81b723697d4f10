"""Inner optimizers of halos: bit for bit what PyTorch's own do, and what they keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from halos.config.config import resolved
from halos.errors import ConfigError
from halos.testing import record, tiny
from halos.testing.conformance.networks import small_cluster
from halos.training import Job, Task
from halos.training.optimizers import SGD, AdamW, InnerOptimizer, Moments, decaying, numbers_kept
from halos.values.params import Layout

CPU = torch.device("cpu")
LAYOUT = Layout({"matrix": (37, 11), "bias": (53,)})  # pieces that are no multiples of anything a kernel works by
META = torch.device("meta")


def of_torch(optimizer: InnerOptimizer, pieces: list[torch.Tensor]) -> torch.optim.Optimizer:
    """PyTorch's, of a piece that decays and one that does not."""
    decays = [optimizer.weight_decay, 0.0]  # type: ignore[attr-defined]
    groups = [{"params": [piece], "weight_decay": decay} for piece, decay in zip(pieces, decays)]
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(groups, lr=optimizer.lr, momentum=optimizer.momentum)
    assert isinstance(optimizer, AdamW)
    return torch.optim.AdamW(groups, lr=optimizer.lr, betas=optimizer.betas, eps=optimizer.eps, fused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "optimizer", [AdamW(), AdamW(betas=(0.0, 0.5), eps=0.1, weight_decay=0.0), SGD(), SGD(momentum=0.9)]
)
def test_ten_steps_have_the_bits_of_pytorchs_own(optimizer: InnerOptimizer, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    layout = Layout(LAYOUT.shapes, dtype)
    params = torch.randn(layout.size, generator=generator).to(dtype)
    cut = [slice(0, 407), slice(407, 460)]
    pieces = [params[piece].clone().requires_grad_() for piece in cut]
    theirs, state = of_torch(optimizer, pieces), optimizer.init(layout, CPU)
    for step in range(10):
        grad = torch.randn(layout.size, generator=generator).to(dtype)
        for piece, where, group in zip(pieces, cut, theirs.param_groups):
            piece.grad, group["lr"] = grad[where].clone(), 0.1 / (1 + step)
        theirs.step()
        optimizer.step(params, grad, state, 0.1 / (1 + step), layout)
        assert torch.equal(params, torch.cat([piece.detach() for piece in pieces]))
    for name, tensor in state.items():
        if tensor.dim():
            assert torch.equal(tensor, torch.cat([theirs.state[piece][name] for piece in pieces]))
    assert float(state.get("step", torch.tensor(10.0))) == 10.0


def test_plain_descent_keeps_nothing_and_adamw_two_vectors() -> None:
    assert SGD().init(LAYOUT, META) == {} and numbers_kept(SGD(), LAYOUT) == 0
    assert list(SGD(momentum=0.1).init(LAYOUT, META)) == ["momentum_buffer"]
    assert list(AdamW().init(LAYOUT, META)) == ["step", "exp_avg", "exp_avg_sq"]
    assert numbers_kept(AdamW(), LAYOUT) == 2 * (37 * 11 + 53)


def test_matrices_decay_and_what_is_not_there_is_no_slice() -> None:
    assert list(decaying(LAYOUT, 0.5)) == [(slice(0, 407), 0.5), (slice(407, 460), 0.0)]
    assert list(decaying(Layout({"bias": (2,)}), 0.5)) == [(slice(0, 2), 0.0)]
    assert list(decaying(Layout({"matrix": (2, 1)}), 0.5)) == [(slice(0, 2), 0.5)]


def test_second_moments_are_without_their_bias() -> None:
    """Twice g = (2, 3), β₂ = 0.5: v = ¾ g², and 1 − β₂² = ¾."""
    layout, optimizer = Layout({"vector": (2,)}), AdamW(betas=(0.9, 0.5))
    params, state = torch.zeros(2), optimizer.init(layout, CPU)
    assert optimizer.second_moments(state) is None
    for _ in range(2):
        optimizer.step(params, torch.tensor([2.0, 3.0]), state, 0.1, layout)
    found = optimizer.second_moments(state)
    assert found is not None and found.tolist() == pytest.approx([4.0, 9.0])


def test_a_step_that_is_not_to_be_taken_is_none() -> None:
    layout, optimizer = Layout({"matrix": (2, 1)}), AdamW()
    params, state = torch.ones(2), optimizer.init(layout, CPU)
    optimizer.step_unless(params, torch.tensor([math.inf, 1.0]), state, 0.1, layout, torch.tensor(1.0))
    assert params.tolist() == [1.0, 1.0]
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        "step": 0.0, "exp_avg": [0.0, 0.0], "exp_avg_sq": [0.0, 0.0],
    }  # fmt: skip
    optimizer.step_unless(params, torch.tensor([2.0, 1.0]), state, 0.1, layout, torch.tensor(0.0))
    assert state["step"] == 1.0 and params.tolist() == pytest.approx([0.89, 0.89])  # 1 − 0.1 · 0.1, and − 0.1 · g/|g|


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(lr=math.nan), "lr: nan"),
        (lambda: SGD(lr=1e31), "lr: 1e\\+31 is not at most"),
        (lambda: AdamW(betas=(0.9, 1.0)), r"betas: \(0.9, 1.0\) is not two numbers in \[0, 1\)"),
        (lambda: AdamW(eps=0.0), "eps: 0.0"),
        (lambda: SGD(momentum=1.0), r"momentum: 1.0 is not in \[0, 1\)"),
        (lambda: SGD(weight_decay=-1.0), "weight_decay: -1.0"),
    ],
)
def test_bad_options_are_refused(make: Callable[[], InnerOptimizer], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sgd", "betas": [0.9, 0.95]}, "train.optimizer.betas: no such key; there are: lr, momentum, weight"),
        (
            {"name": "adamw", "momentum": 0.9},
            "train.optimizer.momentum: no such key; there are: betas, eps, lr",
        ),
        ({"name": "sdg"}, r"train.optimizer.name: 'sdg' is not installed \(did you mean 'sgd'\?\); installed: adamw"),
    ],
)
def test_what_the_one_has_and_the_other_has_not_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        record(tiny(train={"optimizer": options}))


class Anchored(SGD):
    """Keeps what the job began from."""

    def init(self, layout: Layout, device: torch.device) -> Moments:
        return {"anchor": torch.zeros(layout.size, dtype=layout.dtype, device=device), **super().init(layout, device)}

    def begin(self, params: torch.Tensor, state: Moments) -> None:
        state["anchor"].copy_(params)


@pytest.mark.parametrize("most", [1, 2])
def test_an_optimizer_is_told_what_a_job_begins_from(most: int) -> None:
    """From 0, a job of one step of rate ½ along ½ (θ − 1)² leads to ½, where the next begins; alone or in a stack."""
    config, _ = resolved(tiny(model={"size": 1}, executor={"name": "stacked", "most": most}))
    config.train.optimizer = Anchored(lr=0.5, weight_decay=0.0)
    executor: Any = config.executor
    start = executor.open(Task(config.model, config.data, config.train, small_cluster(2), 0, {}))
    at = {0: start, 1: start + start}
    for number in (0, 2):
        jobs = [Job(number + worker, worker, at[worker], 1, 0, number, number + 1, 0, 0.0) for worker in (0, 1)]
        for job in jobs:
            executor.submit(job)
        for job in jobs:
            begun, at[job.worker] = at[job.worker], executor.result(job).params
            assert executor.inner_state(job.worker)["optimizer"]["anchor"].tolist() == begun.flat.tolist()
    assert at[0].flat.tolist() == [0.75]
