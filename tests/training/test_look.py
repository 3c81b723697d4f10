"""One look at a module: one line, naming the model, for whatever a loss may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Optional

import pytest
import torch
from torch import nn

from halos.errors import ConfigError
from halos.training.look import look

Forward = Callable[["Net", torch.Tensor], Any]
BATCH = torch.arange(12).view(4, 3)


class Net(nn.Module):
    """A layer, another that may be left out, and a parameter in a plain list."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(3, 1), nn.Linear(1, 1)
        self.listed = [nn.Linear(1, 1, bias=False)]
        self.steps = 0
        self.rule = forward

    def forward(self, batch: torch.Tensor) -> Any:
        return self.rule(self, self.spare(self.layer(batch.float())))


@dataclass
class Mine:
    """Its name is all that counts."""

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        raise NotImplementedError


def looked(forward: Forward) -> None:
    look(Mine(), Net(forward), repeat(BATCH), nullcontext)


def test_a_scalar_loss_of_all_parameters_is_good() -> None:
    looked(lambda net, out: out.mean())
    looked(lambda net, out: out.sum().bfloat16())


def detached(net: Net, out: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (out * 2).mean()


def grows(net: Net, out: torch.Tensor) -> torch.Tensor:
    net.late = nn.Parameter(torch.zeros(1))
    return out.mean() + net.late.sum()


def replaced(net: Net, out: torch.Tensor) -> torch.Tensor:
    net.spare.weight = nn.Parameter(torch.ones(1, 1))
    return net.spare(out).mean()


PROBLEMS: list[tuple[Forward, str]] = [
    (lambda net, out: (out.mean(), out), "its loss in training is a tuple, not a tensor; return the mean loss alone"),
    (lambda net, out: {"loss": out.mean()}, "its loss in training is a dict, not a tensor; return the mean loss alone"),
    (lambda net, out: out.mean().item(), "its loss in training is a float, not a tensor; return the mean loss alone"),
    (grows, "it makes its parameter late while it computes; make all of them in build()"),
    (replaced, "it replaces its parameter spare.weight while it computes; make all of them in build()"),
    (lambda net, out: None, "its loss in training is a NoneType, not a tensor; return the mean loss alone"),
    (lambda net, out: out[:, 0], "its loss in training has shape [4] and is no scalar; return its mean()"),
    (lambda net, out: out.mean(0), "its loss in training has shape [1] and is no scalar; return its mean()"),
    (lambda net, out: out.sum().long(), "its loss in training is torch.int64, not a floating-point number"),
    (lambda net, out: out.sum() * 1j, "its loss in training is torch.complex64, not a floating-point number"),
    (lambda net, out: out.mean().detach(), "its loss has no gradient (is it detached, or computed under no_grad?)"),
    (detached, "its loss has no gradient (is it detached, or computed under no_grad?)"),
    (
        lambda net, out: net.layer(BATCH.float()).mean(),
        "its loss does not depend on spare.weight and 1 more, which would only be decayed; freeze it"
        " (requires_grad_(False)) or leave it out",
    ),
    (
        lambda net, out: net.listed[0](out).mean(),
        "its loss depends on a trainable tensor of shape [1, 1] that is no parameter of the module; make it one"
        " (nn.Parameter), and a list of modules an nn.ModuleList",
    ),
    (
        lambda net, out: out.mean() if net.training else out,
        "its loss in evaluation has shape [4, 1] and is no scalar; return its mean()",
    ),
]


@pytest.mark.parametrize(("forward", "said"), PROBLEMS)
def test_what_is_no_loss_is_told_in_one_line_that_names_the_model(forward: Forward, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        looked(forward)
    start, _, rest = str(refused.value).partition("): ")
    assert start.startswith("model: Mine (") and start.endswith("test_look.py")
    assert rest == said


def test_what_fails_is_told_with_the_batch_and_the_line() -> None:
    with pytest.raises(ConfigError) as refused:
        looked(lambda net, out: (out @ out).mean())
    said = str(refused.value)
    assert said.startswith("model: Mine (") and "\n" not in said
    assert " cannot be trained on a batch of torch.int64 [4, 3]: RuntimeError: mat1 and mat2 shapes" in said
    assert said.rpartition(" (")[2].partition(":")[0].endswith("test_look.py")


def test_a_parameter_that_some_batches_do_not_use_is_good() -> None:
    def every_third(net: Net, out: torch.Tensor) -> torch.Tensor:
        net.steps += 1
        return out.mean() if net.steps % 3 == 0 else net.layer(BATCH.float()).mean()

    looked(every_third)


def test_a_loss_may_depend_on_a_gradient_of_its_input() -> None:
    def penalty(net: Net, out: torch.Tensor) -> torch.Tensor:
        x = BATCH.float().requires_grad_()
        return net.spare(net.layer(x)).square().mean()

    looked(penalty)
