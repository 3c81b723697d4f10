"""Embeddings with a padding index, seen while a module is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


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
