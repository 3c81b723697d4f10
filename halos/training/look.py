"""One look at a module before it is trained: whether it does with a batch what is assumed of every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch

from halos.data.batch import Batch
from halos.errors import UserError, under
from halos.models import Model
from halos.models.building import named, told, trained

LOOKS = 4  # batches, before a parameter is said to have no part in the loss: some have none in every one


def look(
    model: Model,
    module: torch.nn.Module,
    batches: Iterator[torch.Tensor | Batch],
    precision: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Compute the loss of a batch or more, in training and in evaluation, and its gradients (added to what there is).

    Raises ConfigError, naming the `model` that made the module, for a loss that is no scalar, floating-point, attached
    tensor, or that depends on a tensor that is no parameter of the module, or not on one that is; and for a module that
    makes itself parameters while it computes.
    """
    parameters, all_of_it = trained(module), dict(module.named_parameters())
    unused, names = set(parameters), {id(parameter): name for name, parameter in parameters.items()}
    hooks = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda reached: unused.discard(names[id(reached)])
        )
        for parameter in parameters.values()
    ]
    try:
        for batch in islice(batches, LOOKS):
            what = f"cannot be trained on a batch of {_kind(batch)}"
            with under("model"), told(model, what), named(model):
                with precision():
                    loss = _scalar(module(batch), "training")
                _refuse_new(all_of_it, module)
                if not loss.requires_grad:
                    raise UserError("its loss has no gradient (is it detached, or computed under no_grad?)")
                _refuse_strangers(loss, module)
                loss.backward()  # type: ignore[no-untyped-call]
            if not unused:
                break
    finally:
        for hook in hooks:
            hook.remove()
    with under("model"), told(model, f"cannot be evaluated on a batch of {_kind(batch)}"), named(model):
        if unused:
            first, more = next(name for name in parameters if name in unused), len(unused) - 1
            raise UserError(
                f"its loss does not depend on {first}{f' and {more} more' if more else ''}, which would only be"
                " decayed; freeze it (requires_grad_(False)) or leave it out"
            )
        module.eval()
        with torch.no_grad(), precision():
            _scalar(module(batch), "evaluation")
        module.train()


def _kind(batch: Any) -> str:
    """Return types and shapes of a batch's tensor, or tensors."""
    several = [batch] if isinstance(batch, torch.Tensor) else batch
    return ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in several)


def _scalar(loss: Any, mode: str) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor):
        raise UserError(f"its loss in {mode} is a {type(loss).__name__}, not a tensor; return the mean loss alone")
    if loss.shape != ():
        raise UserError(f"its loss in {mode} has shape {list(loss.shape)} and is no scalar; return its mean()")
    if not loss.is_floating_point():
        raise UserError(f"its loss in {mode} is {loss.dtype}, not a floating-point number")
    return loss


def _refuse_new(before: dict[str, torch.nn.Parameter], module: torch.nn.Module) -> None:
    """Raise UserError if the module has other parameters than `before`: what is trained is settled by then."""
    for name, parameter in module.named_parameters():
        if before.get(name) is not parameter:
            made = "replaces" if name in before else "makes"
            raise UserError(f"it {made} its parameter {name} while it computes; make all of them in build()")


def _refuse_strangers(loss: torch.Tensor, module: torch.nn.Module) -> None:
    """Raise UserError if the loss has a gradient of something that is no parameter: it would never be trained."""
    known = {id(parameter) for parameter in module.parameters()}
    held = {id(value) for owner in module.modules() for value in vars(owner).values()}
    ahead, seen = [loss.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        theirs = isinstance(leaf, torch.nn.Parameter) or id(leaf) in held  # and not, say, the batch
        if leaf is not None and theirs and id(leaf) not in known:
            raise UserError(
                f"its loss depends on a trainable tensor of shape {list(leaf.shape)} that is no parameter of the"
                " module; make it one (nn.Parameter), and a list of modules an nn.ModuleList"
            )
        ahead += [before for before, _ in node.next_functions]
