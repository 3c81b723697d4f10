"""Several workers' parameters, gradients and optimizer moments while they are trained: a row each of a few matrices."""

from __future__ import annotations

import torch

from halos.training.optimizers import Moments
from halos.values.params import Layout

ALIGNED = 16  # numbers; every row begins at a multiple, so that its arithmetic is the same wherever it lies


class Rows:
    """Room for so many workers, in matrices [rows, P], and what an optimizer keeps of each."""

    def __init__(self, rows: int, layout: Layout, like: Moments, device: torch.device) -> None:
        """Of moments such as `like`: of its vectors [n] there are matrices [rows, n], of its numbers vectors [rows]."""
        self.room = rows
        self._layout = layout

        def matrix(size: int) -> torch.Tensor:
            width = -(-size // ALIGNED) * ALIGNED
            return torch.zeros(rows, width, dtype=layout.dtype, device=device)[:, :size]

        self.params = matrix(layout.size)
        self.grad = matrix(layout.size)
        self.moments = {
            name: matrix(len(tensor)) if tensor.dim() else torch.zeros(rows, dtype=tensor.dtype, device=device)
            for name, tensor in like.items()
        }

    def named(self, matrix: torch.Tensor, rows: int) -> dict[str, torch.Tensor]:
        """Return the first rows of `params` or `grad` by the names of tensors, [rows, *shape]; the same memory."""
        return {
            name: matrix[:rows, self._layout.slice_of(name)].view(rows, *shape)
            for name, shape in self._layout.shapes.items()
        }

    def first(self, rows: int) -> Moments:
        """Return the moments of the first rows; the same memory."""
        return {name: several[:rows] for name, several in self.moments.items()}

    def of(self, row: int) -> Moments:
        """Return a row's moments; the same memory."""
        return {name: several[row] for name, several in self.moments.items()}

    def put(self, row: int, params: torch.Tensor, moments: Moments) -> None:
        """Let a row be a worker's."""
        self.params[row] = params
        for name, tensor in moments.items():
            self.moments[name][row] = tensor

    def take(self, row: int) -> Moments:
        """Return a row's moments, copied."""
        return {name: tensor.clone() for name, tensor in self.of(row).items()}
