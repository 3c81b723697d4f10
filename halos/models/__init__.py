"""Models: what is trained."""

from __future__ import annotations

from typing import Optional, Protocol

import torch


class Model(Protocol):
    """A model's configuration: it can build a module.

    A method `shapes(vocab_size)` may give every trained tensor's name and shape for nothing; otherwise the
    module is built on the meta device for that. A field or attribute `wire_bytes` (int or None), if there is
    one, says what the whole model weighs on the wire in fp32; otherwise that is four bytes per trained parameter.
    """

    def build(self, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
        """Build a module, initialised from `seed`; `vocab_size` is the data's (None if unknown).

        `module(batch)` takes the data's samples (int64 [batch, sequence_length + 1]) and returns the mean
        loss, a scalar tensor (for language models: nats per predicted token). Global random generators have
        been seeded from `seed`. Parameters that are not frozen are trained and sent; those that are frozen
        stay as built, and are neither. Buffers are each worker's own and never sent; evaluations and
        `model.pt` have their mean over workers. Raises UserError for what cannot be built.
        """
        ...
