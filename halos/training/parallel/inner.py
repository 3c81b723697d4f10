"""A worker's inner state on its way from one process to another: moments in slots, all else small and plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from halos.training.inner_states import COUNT, WorkerState
from halos.training.kept import State
from halos.training.parallel.slots import Slots


class Inner(NamedTuple):
    """What a worker keeps; without `moments` and `counts` its optimizer has not stepped yet, or keeps nothing."""

    moments: dict[str, int]  # by name, the slot of a vector [P]
    counts: dict[str, float]  # likewise, a number beside it
    scaler: dict[str, Any]  # of fp16's loss scale
    kept: State  # buffers


NEW = Inner({}, {}, {}, {})  # of a worker that had no job


def packed(state: WorkerState, slots: Slots) -> Inner:
    """Return `state` for another process. Moments that lie elsewhere are moved to slots, where they stay."""
    moments: dict[str, int] = {}
    counts: dict[str, float] = {}
    pieces = list(state.pieces())
    _, first = pieces[0]
    for name, value in state.optimizer.state.get(first, {}).items():
        if name == COUNT:
            counts[name] = float(value)
        elif value is not None:
            held = slots.holding(value)
            if held is None:
                held, vector = slots.new()
                for piece, parameter in pieces:
                    vector[piece] = state.optimizer.state[parameter][name]
                    state.optimizer.state[parameter][name] = vector[piece]
            moments[name] = held
    return Inner(moments, counts, state.scaler.state_dict(), state.kept)


def unpack(inner: Inner, vectors: Mapping[str, torch.Tensor], state: WorkerState) -> None:
    """Let `state` be what `inner` is; its moments, by name, are in these vectors [P], and live there."""
    for piece, parameter in state.pieces():
        if inner.moments or inner.counts:
            state.optimizer.state[parameter] = {
                **{name: torch.tensor(count, dtype=torch.float32) for name, count in inner.counts.items()},
                **{name: vectors[name][piece] for name in inner.moments},
            }
    if inner.scaler:
        state.scaler.load_state_dict(inner.scaler)
    state.kept = inner.kept


def written(state: WorkerState, places: Mapping[str, int], slots: Slots) -> Inner:
    """Return `state`, its moments written to these slots, by name, unless they are there already.

    Without slots it has not stepped, and its moments are not told.
    """
    moments: dict[str, int] = {}
    counts: dict[str, float] = {}
    for piece, parameter in state.pieces() if places else ():
        for name, value in state.optimizer.state.get(parameter, {}).items():
            if name == COUNT:
                counts[name] = float(value)
            elif value is not None:
                there = slots.at(places[name])[piece]
                if there.data_ptr() != value.data_ptr():
                    there.copy_(value)
                moments[name] = places[name]
    return Inner(moments, counts, state.scaler.state_dict(), state.kept)
