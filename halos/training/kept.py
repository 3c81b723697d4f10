"""What a module keeps outside its trained parameters: a set of buffers per worker, moved in and out around its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, TypeAlias

import torch

from halos.errors import ConfigError

# What differs from the module as it was built, by buffer; None: no tensor.
State: TypeAlias = "dict[str, Optional[torch.Tensor]]"


class Kept:
    """One module's buffers, in place of each worker's; and what must stay as it is, or cannot be moved.

    Buffers are copied into the tensors that there are, so that whoever else holds one sees it too.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        """Take `module` as it is for what every worker begins with."""
        self._places: dict[str, tuple[dict[str, Optional[torch.Tensor]], str]] = {}
        self._initial: State = {}
        seen: set[int] = set()  # a buffer of two names is one
        self.generators: list[torch.Generator] = []  # the module's own, to be seeded for each job
        for path, owner in module.named_modules():
            self.generators += [each for each in vars(owner).values() if isinstance(each, torch.Generator)]
            for key, buffer in owner._buffers.items():
                if buffer is not None and id(buffer) in seen:
                    continue
                seen.add(id(buffer))
                if buffer is not None and any(
                    step == 0 < size - 1 for size, step in zip(buffer.shape, buffer.stride())
                ):
                    owner._buffers[key] = buffer = buffer.contiguous()  # an expanded one: nothing can be copied into it
                name = f"{path}.{key}" if path else key
                self._places[name] = owner._buffers, key
                self._initial[name] = None if buffer is None else buffer.detach().clone()
        self._frozen = [
            (name, each, each._version) for name, each in module.named_parameters() if not each.requires_grad
        ]

    def put(self, state: State) -> None:
        """Let the module have the buffers of `state`; all others as it was built."""
        for name, (buffers, key) in self._places.items():
            value, here = state.get(name, self._initial[name]), buffers[key]
            if value is not None and here is not None and _alike(value, here):
                with torch.no_grad():
                    here.copy_(value)
            else:
                buffers[key] = None if value is None else value.clone()

    def take(self) -> State:
        """Return the buffers that the module has now (copied). Raises ConfigError if it has changed what is frozen."""
        for name, parameter, version in self._frozen:
            if parameter._version != version:
                raise ConfigError(
                    "model", f"changes {name}, which is frozen; make it a buffer, of which each worker has its own"
                )
        state: State = {}
        for name, (buffers, key) in self._places.items():
            here, initial = buffers[key], self._initial[name]
            if here is None or initial is None:
                if here is not initial:
                    state[name] = None if here is None else here.detach().clone()
            elif not _alike(here, initial) or not torch.equal(here, initial):
                state[name] = here.detach().clone()
        return state

    def mean(self, states: Sequence[State]) -> State:
        """Return what stands for several workers' buffers: floating-point ones averaged, others the first worker's."""
        names = dict.fromkeys(name for state in states for name in state)
        return {name: _mean([state.get(name, self._initial[name]) for state in states]) for name in names}

    def checked(self, state: Mapping[str, Any], device: torch.device) -> State:
        """Return a saved state, on the device. Raises ValueError if it cannot be of this module."""
        for name, value in state.items():
            plain = value is None or (type(value) is torch.Tensor and value.layout == torch.strided)
            if name not in self._places or not plain:
                raise ValueError(f"{name} is no buffer")
        return {name: None if value is None else value.to(device) for name, value in state.items()}


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one can be copied into the other as it is."""
    return one.shape == other.shape and one.dtype == other.dtype


def _mean(several: Sequence[Optional[torch.Tensor]]) -> Optional[torch.Tensor]:
    """The mean of floating-point tensors of one shape, summed in fp64 in this order; of anything else the first."""
    first = several[0]
    tensors = [each for each in several if each is not None and first is not None and _alike(each, first)]
    if first is None or len(tensors) < len(several) or not first.is_floating_point():
        return first
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(first.dtype)
