"""Embeddings with a padding index are seen, however they are called, and no others."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from halos.training.stacked.padding import Padding

WORDS = torch.tensor([0, 1, 2])
TABLE = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("compute", "seen"),
    [
        (lambda: torch.nn.Embedding(3, 2, padding_idx=0)(WORDS), True),
        (lambda: torch.nn.Embedding(3, 2, padding_idx=-1)(WORDS), True),  # from the end
        (lambda: F.embedding(WORDS, TABLE, padding_idx=2), True),
        (lambda: torch.nn.Embedding(3, 2)(WORDS), False),
        (lambda: F.embedding(WORDS, TABLE), False),
        (lambda: TABLE[WORDS], False),
    ],
)
def test_a_padding_index_is_seen(compute: torch.nn.Module, seen: bool) -> None:
    with Padding() as padding:
        compute()
    assert padding.seen is seen
