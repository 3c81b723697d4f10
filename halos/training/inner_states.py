"""What each worker keeps from job to job and never sends: its inner state, whoever asks for it and in whatever form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch

from halos.training.kept import Kept, State
from halos.training.optimizers import Moments
from halos.training.options import TrainOptions
from halos.values.params import Layout

SHARED = -1  # the worker number of the state that is no worker's


class WorkerState:
    """One worker's: what the optimizer keeps (None: it has not begun), fp16's loss scale, buffers."""

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self.moments: Optional[Moments] = None
        self.scaler = scaler
        self.kept: State = {}

    def saved(self) -> dict[str, Any]:
        """Return it in plain values and tensors (not copied)."""
        return {"optimizer": self.moments, "scaler": self.scaler.state_dict(), "kept": self.kept}


class InnerStates:
    """Those of all workers that had a job, and how many of their local steps fp16's loss scaling left out."""

    def __init__(self, options: TrainOptions, layout: Layout, kept: Kept, device: torch.device) -> None:
        """None yet. `kept` knows which buffers the module has."""
        self.skipped = 0
        self._options = options
        self._layout = layout
        self._kept = kept
        self._device = device
        self._states: dict[int, WorkerState] = {}

    def of(self, worker: int) -> WorkerState:
        """Return a worker's own state, made at its first job."""
        if worker not in self._states:
            self._states[worker] = self.new()
        return self._states[worker]

    def known(self, worker: int) -> Optional[WorkerState]:
        """Return a worker's own state; None before its first job."""
        return self._states.get(worker)

    def new(self) -> WorkerState:
        """Return the state that a worker begins with."""
        return WorkerState(torch.amp.GradScaler(self._device.type, enabled=self._options.precision == "fp16"))

    def moments(self, state: Optional[WorkerState], job: bool = True) -> Moments:
        """Return what the optimizer begins with in a `job`, or goes on from without one: new if there is none yet."""
        if state is None or state.moments is None or (job and self._options.optimizer_state == "new"):
            return self._options.optimizer.init(self._layout, self._device)
        return state.moments

    def give(self, worker: int, state: WorkerState) -> None:
        """Let a worker have this very state."""
        self._states[worker] = state

    def forget(self, worker: int) -> None:
        """Forget the worker's state; its next job begins with a new one."""
        self._states.pop(worker, None)

    def buffers(self) -> list[State]:
        """Return the buffers of all workers, in their order."""
        return [own.kept for worker, own in sorted(self._states.items()) if worker != SHARED]

    def state(self) -> dict[str, Any]:
        """Return all of it, by worker, in plain values and tensors (not copied)."""
        return {"workers": {str(worker): own.saved() for worker, own in self._states.items()}, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned. Raises ValueError if it is not of this model and optimizer."""
        self.skipped = int(state["skipped"])
        for worker, saved in state["workers"].items():
            self._load(self.of(int(worker)), saved)

    def saved(self, worker: int) -> dict[str, Any]:
        """Return a worker's state as `state` has it (not copied); before its first job, a new one."""
        return (self._states.get(worker) or self.new()).saved()

    def load(self, worker: int, inner: dict[str, Any]) -> None:
        """Let a worker have a state that `saved` or `copied` returned (not copied). Raises as `restore` does."""
        self._load(self.of(worker), inner)

    def copied(self, worker: int) -> dict[str, Any]:
        """Return a worker's state, a copy of it, as `state` has it."""
        copied: dict[str, Any] = _copied(self.of(worker).saved())
        return copied

    @contextmanager
    def standing_in(self, worker: int, inner: dict[str, Any]) -> Iterator[None]:
        """For the body, let the worker have the state `inner` (as `copied` returned it, copied again).

        Afterwards it has the very state that it had, and as many steps are skipped. Raises as `restore` does.
        """
        mine, skipped, other = self._states.get(worker), self.skipped, self.new()
        self._load(other, _copied(inner))
        self._states[worker] = other
        try:
            yield
        finally:
            self.skipped = skipped
            if mine is None:
                del self._states[worker]
            else:
                self._states[worker] = mine

    def _load(self, mine: WorkerState, saved: dict[str, Any]) -> None:
        moments = saved["optimizer"]
        if moments is not None:
            moments = checked(moments, self._options.optimizer.init(self._layout, torch.device("meta")), self._device)
        mine.moments = moments
        if not all(isinstance(value, (int, float)) for value in saved["scaler"].values()):
            raise ValueError("a loss scale that is no number")
        mine.scaler.load_state_dict(saved["scaler"])
        mine.kept = self._kept.checked(saved["kept"], self._device)


def checked(moments: Moments, like: Moments, device: torch.device) -> Moments:
    """Return saved moments on a device. Raises ValueError unless they are what an optimizer keeps, as `like` is.

    Kernels would go beyond the end of what is smaller.
    """
    if not isinstance(moments, dict) or set(moments) != set(like):
        raise ValueError(f"{', '.join(map(str, moments)) or 'nothing'} of another optimizer")
    found = {}
    for name, mine in like.items():
        tensor, size = moments[name], mine.numel()
        if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or tensor.numel() != size:
            raise ValueError(f"{name} is no vector of {size}")
        found[name] = tensor.to(device, mine.dtype).reshape(mine.shape)
    return found


def _copied(value: Any) -> Any:
    """The same with copies of all tensors."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
