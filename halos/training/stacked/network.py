"""A module as a function of several workers' parameters: the model's own or torch's vmap, where that is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from halos.data.batch import Batch, moved
from halos.errors import UserError
from halos.models import Model
from halos.seeds import drawing
from halos.training.compiling import compiled
from halos.training.trainer import Trainer

# Parameters by name [rows, *shape], and a batch, each tensor [rows, samples, …] → losses [rows], each of its row alone.
Network: TypeAlias = "Callable[[dict[str, torch.Tensor], Any], torch.Tensor]"
ALIKE = 1e-4  # relative difference of gradients up to which two computations of the same are taken for that
CHANGED = "the model changes its buffers, of which every worker has its own"


class Unlike(UserError):
    """A module cannot be computed for several workers at once; why, as a clause."""


class Mapped:
    """A module's loss by torch.vmap."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def __call__(self, tensors: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        several = isinstance(batch, Batch)

        def one(tensors: dict[str, torch.Tensor], *parts: torch.Tensor) -> torch.Tensor:
            given = Batch(*parts) if several else parts[0]
            loss: torch.Tensor = torch.func.functional_call(self._module, tensors, (given,))
            return loss

        losses: torch.Tensor = torch.vmap(one)(tensors, *(batch if several else [batch]))
        return losses


class Padding(TorchDispatchMode):
    """Notes whether an embedding is computed whose `padding_idx` has no gradient.

    By torch.vmap that holds in the first row alone (PyTorch 2), which a comparison shows only where batches have it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default and args[2:3] and args[2] >= 0:
            self.seen = True
        return func(*args, **(kwargs or {}))


class Compiled:
    """A network compiled by PyTorch; on a GPU, a CUDA graph for each number of rows."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self._forward = compiled(lambda both: network(*both), device)

    def __call__(self, tensors: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        losses: torch.Tensor = self._forward((tensors, batch))
        return losses


def failed(error: Exception) -> str:
    """Return what to say of a network that an error was raised in."""
    said = next(iter(str(error).splitlines()), "")
    return f"the model cannot be computed for several workers at once ({type(error).__name__}: {said[:80]})"


def network_of(model: Model, trainer: Trainer, batches: Sequence[Any]) -> Network:
    """Return the network of several workers, compared with the trainer's module on the first and last of `batches`.

    Raises Unlike where it cannot be or is not the same: for modules that draw, that change their buffers, that
    torch.vmap is wrong about, or whose loss or gradient comes out otherwise; what the module has is as before.
    """
    own = getattr(model, "stacked", None)
    network: Network = Mapped(trainer.module) if own is None else own(trainer.module)
    if trainer.kept.generators:
        raise Unlike("the model draws from a generator of its own")
    two = [moved(batch, trainer.device) for batch in (batches[0], batches[-1])]
    start = trainer.flat.detach().clone()
    try:
        if own is None:
            with Padding() as padding, drawing(0, trainer.device), torch.no_grad():
                trainer.module(two[0])
            if padding.seen:
                raise Unlike("the model has an embedding with a padding_idx, which torch.vmap heeds in one row only")
        _compare(network, trainer, start, two)
        if trainer.options.compile:
            network = Compiled(network, trainer.device)
            _compare(network, trainer, start, two)
    finally:
        trainer.kept.put({})
        trainer.flat.copy_(start)
        trainer.grad.zero_()
    return network


def _compare(network: Network, trainer: Trainer, start: torch.Tensor, two: list[Any]) -> None:
    """Compute two rows of different parameters by the module and by the network, in the parameters' own precision."""
    rows = torch.stack([start, start * 1.01 + 0.01])
    alone = []
    for index, seed in ((0, 0), (0, 1), (1, 0)):
        with drawing(seed, trainer.device):
            alone.append(_alone(trainer, rows[index], two[index]))
    if trainer.kept.take():
        raise Unlike(CHANGED)
    if not _alike(*alone[:2]):
        raise Unlike("the model draws random numbers")
    layout = trainer.layout
    tensors = {
        name: rows[:, layout.slice_of(name)].view(2, *shape).detach().requires_grad_()
        for name, shape in layout.shapes.items()
    }
    try:
        with drawing(0, trainer.device):
            losses = network(tensors, _stacked(two))
            losses.sum().backward()  # type: ignore[no-untyped-call]
        grads = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
        found = [(losses[row].detach(), torch.cat([grad[row].flatten() for grad in grads])) for row in (0, 1)]
    except Exception as error:
        raise Unlike(failed(error)) from error
    if trainer.kept.take():
        raise Unlike(CHANGED)
    if not (_alike(alone[0], found[0]) and _alike(alone[2], found[1])):
        raise Unlike("the model, computed for several workers at once, gives other gradients")


def _alone(trainer: Trainer, flat: torch.Tensor, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient by the module itself."""
    trainer.flat.copy_(flat)
    trainer.grad.zero_()  # of which the gradients are views
    loss = trainer.module(batch)
    loss.backward()
    return loss.detach(), trainer.grad.clone()


def _alike(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Whether losses and gradients are the same but for rounding; those that are no numbers are."""
    return all(
        bool((a - b).double().norm() <= ALIKE * b.double().norm()) or not bool(a.isfinite().all() or b.isfinite().all())
        for a, b in zip(one, other)
    )


def _stacked(batches: list[Any]) -> Any:
    """Two batches of one shape as one, [2, …]."""
    if isinstance(batches[0], Batch):
        return Batch(*map(torch.stack, zip(*batches)))
    return torch.stack(batches)
