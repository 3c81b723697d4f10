"""A worker's inner state on its way from one process to another: vectors in slots, all else small and plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch

from halos.training.inner_states import WorkerState
from halos.training.kept import State
from halos.training.optimizers import Moments
from halos.training.parallel.slots import Slots


class Inner(NamedTuple):
    """What a worker keeps."""

    slots: Optional[tuple[int, ...]]  # that its optimizer's vectors lie in; None: that has not begun
    numbers: dict[str, Any]  # what it keeps beside them
    scaler: dict[str, Any]  # of fp16's loss scale
    kept: State  # buffers


NEW = Inner(None, {}, {}, {})  # of a worker that had no job


class Places:
    """Where the vectors that an optimizer keeps of a worker lie, in as few slots as they find room in."""

    def __init__(self, like: Moments, size: int) -> None:
        """Of tensors such as `like`, in slots of so many numbers."""
        self._types = {name: tensor.dtype for name, tensor in like.items()}
        self._slices: dict[str, tuple[int, slice]] = {}
        ends: list[int] = []  # of what lies in each slot
        vectors = {name: len(tensor) for name, tensor in like.items() if tensor.dim()}
        for name, length in sorted(vectors.items(), key=lambda vector: -vector[1]):
            slot = next((slot for slot, end in enumerate(ends) if end + length <= size), len(ends))
            if slot == len(ends):
                ends.append(0)
            self._slices[name] = slot, slice(ends[slot], ends[slot] + length)
            ends[slot] += length
        self.count = len(ends)

    def numbers(self, moments: Moments) -> dict[str, Any]:
        """Return what is no vector, in plain values."""
        return {name: tensor.item() for name, tensor in moments.items() if not tensor.dim()}

    def lying_in(self, vectors: Sequence[torch.Tensor], numbers: dict[str, Any]) -> Moments:
        """Return moments that lie in the vectors of slots, and have these numbers; what is there is left as it is."""
        found = {}
        for name, dtype in self._types.items():
            if name in numbers:
                found[name] = torch.tensor(numbers[name], dtype=dtype)
            else:
                slot, piece = self._slices[name]
                found[name] = vectors[slot][piece]
        return found

    def moved(self, moments: Moments, vectors: Sequence[torch.Tensor]) -> Moments:
        """Return the same in the vectors of slots, written there unless it is there already."""
        there = self.lying_in(vectors, self.numbers(moments))
        for name in self._slices:
            if there[name].data_ptr() != moments[name].data_ptr():
                there[name].copy_(moments[name])
        return there

    def held(self, moments: Moments, slots: Slots) -> Optional[tuple[int, ...]]:
        """Return the slots that moments lie in; None if they lie elsewhere."""
        first = [slots.holding(moments[name]) for name, (_, piece) in self._slices.items() if piece.start == 0]
        known = tuple(slot for slot in first if slot is not None)
        return known if len(known) == self.count else None


def packed(state: WorkerState, places: Places, slots: Slots) -> Inner:
    """Return `state` for another process. Vectors that lie elsewhere are moved to slots, where they stay."""
    if state.moments is None:
        return Inner(None, {}, state.scaler.state_dict(), state.kept)
    held = places.held(state.moments, slots)
    if held is None:
        new = [slots.new() for _ in range(places.count)]
        held = tuple(slot.number for slot in new)
        state.moments = places.moved(state.moments, [slot.vector for slot in new])
    return Inner(held, places.numbers(state.moments), state.scaler.state_dict(), state.kept)


def unpack(inner: Inner, places: Places, vectors: Sequence[torch.Tensor], state: WorkerState) -> None:
    """Let `state` be what `inner` is; its moments live in these vectors [P], which are those of its slots.

    Where `inner` says nothing of moments, it has those that it had.
    """
    if inner.slots is not None:
        state.moments = places.lying_in(vectors, inner.numbers)
    if inner.scaler:
        state.scaler.load_state_dict(inner.scaler)
    state.kept = inner.kept


def written(state: WorkerState, places: Places, slots: Optional[Sequence[int]], all_of_them: Slots) -> Inner:
    """Return `state`, its moments written to these slots unless they are there already; None: they are not told."""
    if slots is None or state.moments is None:
        return Inner(None, {}, state.scaler.state_dict(), state.kept)
    moments = places.moved(state.moments, [all_of_them.at(slot) for slot in slots])
    return Inner(tuple(slots), places.numbers(moments), state.scaler.state_dict(), state.kept)
