"""A module compiled by PyTorch (`train.compile`): how, and what is said where that cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from halos.errors import UserError

Forward: TypeAlias = "Callable[[Any], Any]"  # of a batch, its mean loss


def compiled(module: Forward, device: torch.device) -> Forward:
    """Return a module's forward (or any function's), compiled with its backward when it is first called.

    On a GPU as CUDA graphs: what a step of a small model costs is launching its kernels. Gradients are added to those
    that there are, as ever: a graph's own are results, and lie elsewhere. Raises UserError where this Python or this
    system is none that PyTorch compiles on.
    """
    with _refused():
        if device.type != "cuda":
            plain: Forward = torch.compile(module)
            return plain
        graphs: Forward = torch.compile(module, mode="reduce-overhead")

    def forward(batch: Any) -> Any:
        # The last batch's results may be overwritten.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return graphs(batch)

    return forward


def compile_now(forward: Forward, batch: Any, precision: Callable[[], Any]) -> None:
    """Compute a loss and its gradients (added to what there is), so that what fails does so before a run begins.

    Raises UserError in PyTorch's words if it cannot be compiled.
    """
    with _refused():
        with precision():
            loss = forward(batch)
        loss.backward()


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split("\n\n")[0].split())  # then come hints for those who debug PyTorch
        raise UserError(f"cannot be compiled here: {said}; train.compile=false trains it as it is") from error
