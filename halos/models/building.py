"""From a model's configuration to its module: built from the seed alone, and compared with what is assumed of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import torch

from halos.errors import UserError, from_here, shown
from halos.models import Model
from halos.seeds import drawing, seed_for

BEYOND = ("index out of range in self", "Target ")  # torch's words, of an embedding and of cross_entropy
Shapes = dict[str, tuple[int, ...]]


def built(model: Model, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
    """Return the model's module; what it draws from global generators follows from `seed`, and they are left alone.

    Raises UserError if that fails, or gives no module.
    """
    with drawing(seed_for(seed, "initial weights")), told(model, "cannot be built"):
        module: Any = model.build(vocab_size, seed)
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{title(model)}: build() returns {type(module).__name__}, which is no torch.nn.Module")
    return module


def shapes_of(model: Model, vocab_size: Optional[int]) -> Shapes:
    """Return name and shape of every tensor that the model trains, in order, for nothing.

    The model says them (`shapes`), or it is built on the meta device, where nothing is allocated; or else for real.
    Raises UserError, naming the model, if that fails, or if what it says are no shapes.
    """
    said = getattr(model, "shapes", None)
    if said is not None:
        with told(model, "cannot say its shapes"):
            shapes: Shapes = said(vocab_size)
        with named(model):
            refuse_no_shapes(shapes)
        return shapes
    try:
        with torch.device("meta"):
            module = built(model, vocab_size, 0)
    except UserError:  # it may want to look at numbers
        module = built(model, vocab_size, 0)
    with named(model):
        return {name: tuple(parameter.shape) for name, parameter in trained(module).items()}


def trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name: those that are not frozen; a tied one once.

    Raises UserError, naming one, where they cannot be: none, lazy, complex, of different types, or sharing memory.
    """
    parameters: dict[str, torch.nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
            raise UserError(f"{name} has no shape yet (a lazy module); build it with its sizes")
        if parameter.requires_grad:
            parameters[name] = parameter
    if not parameters:
        frozen = any(True for _ in module.parameters())
        raise UserError("all its parameters are frozen" if frozen else "it has no parameters; nothing could be trained")
    first, dtype = next((name, parameter.dtype) for name, parameter in parameters.items())
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise UserError(f"{name} is {parameter.dtype}; what is trained must be real floating-point numbers")
        if parameter.dtype != dtype:
            raise UserError(
                f"{name} is {parameter.dtype}, but {first} is {dtype}; what is trained must be of one type"
                " (train.precision computes in a lower one)"
            )
    _refuse_shared(module, parameters)
    return parameters


def refuse_no_shapes(said: Any) -> None:
    """Raise UserError unless `said` are names with shapes, as `shapes` should return."""
    if not isinstance(said, dict) or not said:
        raise UserError(f"shapes() returns {shown(said)}; it should be a name and a shape for every tensor")
    for name, shape in said.items():
        sizes = shape if isinstance(shape, (tuple, list)) else [None]
        if not isinstance(name, str) or not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise UserError(f"shapes() says {shown(shape)} of {name}, which is no shape: a tuple of whole numbers")


def refuse_other_shapes(said: Shapes, module: torch.nn.Module) -> None:
    """Raise UserError, naming the first tensor that differs, unless `said` is what is trained, in that order."""
    trains = {name: tuple(parameter.shape) for name, parameter in trained(module).items()}
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for name in dict.fromkeys([*said, *trains]):
        if said.get(name) == trains.get(name):
            continue
        ours = f"says {list(said[name])} of {name}" if name in said else f"does not name {name}"
        theirs = f"makes it {list(trains[name])}" if name in trains else "makes no such parameter"
        raise UserError(f"shapes() {ours}, but build() {'freezes it' if name in frozen else theirs}")
    if list(said) != list(trains):
        first = next(pair for pair in zip(said, trains) if pair[0] != pair[1])
        raise UserError(f"shapes() has {first[0]} where build() has {first[1]}: the order must be the same")


def refuse_unlike(model: Model, said: Shapes, vocab_size: Optional[int]) -> None:
    """As `refuse_other_shapes`, for a plugin's `model` that is not trained, if it can be built for nothing."""
    if getattr(model, "shapes", None) is None or _file(model) is None:
        return
    try:
        with torch.device("meta"):
            module = built(model, vocab_size, 0)
    except UserError:  # then nothing else than what it says is known
        return
    with named(model):
        refuse_other_shapes(said, module)


def title(model: Model) -> str:
    """Return a model's class as messages name it, with its file unless it is one of ours."""
    file = _file(model)
    return type(model).__name__ if file is None else f"{type(model).__name__} ({from_here(file)})"


@contextmanager
def named(model: Model) -> Iterator[None]:
    """Put the model's class in front of the message of any UserError raised inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{title(model)}: {error}") from error.__cause__


@contextmanager
def told(model: Model, what: str) -> Iterator[None]:
    """Whatever else a model's code raises inside becomes a UserError: `what` was wrong, and in which of its lines."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, IndexError) and str(error).startswith(BEYOND):
            raise  # who knows what the data are has more to say
        said = next(iter(str(error).splitlines()), "")
        raise UserError(f"{title(model)} {what}: {type(error).__name__}: {said}{_line(error)}") from error


def _file(model: Model) -> Optional[str]:
    """Return the file of a model's class; None if it has none, or is one of ours."""
    file: Optional[str] = getattr(sys.modules.get(type(model).__module__), "__file__", None)
    return None if file is None or Path(__file__).parent in Path(file).parents else file


def _line(error: Exception) -> str:
    """Return ` (file:line)`, an error's innermost frame that is neither ours nor PyTorch's; empty if none is."""
    inside = (Path(__file__).parents[1], Path(str(torch.__file__)).parent)
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
    theirs = [each for each in frames if not any(place in Path(each.filename).parents for place in inside)]
    return f" ({from_here(theirs[-1].filename)}:{theirs[-1].lineno})" if theirs else ""


def _refuse_shared(module: torch.nn.Module, parameters: dict[str, torch.nn.Parameter]) -> None:
    """Raise UserError if a trained parameter shares memory with another tensor of the module: it is about to move."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    places = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _extent(tensor), name)
        for name, tensor in tensors
        if tensor.layout == torch.strided and not tensor.is_meta and tensor.numel()
    )
    end, last = 0, ""
    for start, upto, name in places:
        if start < end and (name in parameters or last in parameters):
            raise UserError(
                f"{last} and {name} share memory but are two tensors; tie weights by one and the same Parameter"
            )
        if upto > end:
            end, last = upto, name


def _extent(tensor: torch.Tensor) -> int:
    """Return the bytes from a tensor's first element to its last, in memory."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return (steps + 1) * tensor.element_size()
