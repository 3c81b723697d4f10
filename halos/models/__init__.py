"""Models: what is trained, known by its shapes before anything is built."""

from __future__ import annotations

from typing import Optional, Protocol

import torch


class Model(Protocol):
    """A model's configuration; it can say its shapes for nothing and build a module at a cost.

    A field or attribute `wire_bytes` (int or None), if there is one, says what the whole model
    weighs on the wire in fp32; otherwise that is four bytes per parameter.
    """

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        """Return every trained tensor's name and shape; `vocab_size` is the data's (None if unknown).

        Raises UserError for what cannot be built.
        """
        ...

    def build(self, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
        """Build a module whose parameters have those names and shapes, initialised from `seed`.

        `module(batch)` takes the data's samples (int64 [batch, sequence_length + 1]) and returns
        the mean loss, a scalar tensor (for language models: nats per predicted token).
        """
        ...
