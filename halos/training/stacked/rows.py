"""Several workers' parameters, gradients and optimizer moments while they are trained: a row each of a few matrices."""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch

from halos.training.inner_states import COUNT, WorkerState
from halos.values.params import Layout

ALIGNED = 16  # numbers; every row begins at a multiple, so that its arithmetic is the same wherever it lies


class Moments(NamedTuple):
    """What an optimizer keeps of a worker: vectors [P] by name (none before its first step), and its steps."""

    vectors: dict[str, torch.Tensor]
    steps: float


class Rows:
    """Room for so many workers, in matrices [rows, P]."""

    def __init__(self, rows: int, layout: Layout, moments: list[str], device: torch.device) -> None:
        self.room = rows
        self._layout = layout
        width = -(-layout.size // ALIGNED) * ALIGNED

        def matrix() -> torch.Tensor:
            return torch.zeros(rows, width, dtype=layout.dtype, device=device)[:, : layout.size]

        self.params = matrix()
        self.grad = matrix()
        self.moments = {name: matrix() for name in moments}

    def named(self, matrix: torch.Tensor, rows: int) -> dict[str, torch.Tensor]:
        """Return the first rows of `params` or `grad` by the names of tensors, [rows, *shape]; the same memory."""
        return {
            name: matrix[:rows, self._layout.slice_of(name)].view(rows, *shape)
            for name, shape in self._layout.shapes.items()
        }

    def put(self, row: int, params: torch.Tensor, moments: Moments) -> None:
        """Let a row be a worker's."""
        self.params[row] = params
        for name, matrix in self.moments.items():
            held = moments.vectors.get(name)
            matrix[row] = 0.0 if held is None else held

    def take(self, row: int, steps: float) -> Moments:
        """Return a row's moments, copied."""
        return Moments({name: matrix[row].clone() for name, matrix in self.moments.items()}, steps)


def moments_in(state: Optional[WorkerState], names: list[str]) -> Moments:
    """Return the moments in a worker's state."""
    pieces = [] if state is None else [dict(state.optimizer.state.get(vector, {})) for _, vector in state.pieces()]
    kept = pieces and all(pieces)
    vectors = {name: torch.cat([piece[name] for piece in pieces]) for name in names} if kept else {}
    return Moments(vectors, float(pieces[0].get(COUNT, 0.0)) if kept else 0.0)


def give(moments: Moments, state: WorkerState, counted: bool) -> None:
    """Let a worker's state have moments, not copied; with the number of steps if it is `counted`."""
    for piece, vector in state.pieces() if moments.vectors else ():
        # Where the vector is, as fused kernels need it.
        count = {COUNT: torch.tensor(moments.steps, dtype=torch.float32, device=vector.device)} if counted else {}
        state.optimizer.state[vector] = {**count, **{name: kept[piece] for name, kept in moments.vectors.items()}}
