"""Random generators: a fresh one per draw, so that leaving one draw out shifts no other."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Optional

import numpy as np
import torch


def seed_for(seed: int, purpose: str, *ids: int) -> int:
    """Return a 63-bit seed from the run's seed, what the draw is for, and which one it is (SHA-256 of these)."""
    text = "/".join([str(seed), purpose, *map(str, ids)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """Return a NumPy generator for one draw (or one self-contained sequence of draws)."""
    return np.random.default_rng(seed_for(seed, purpose, *ids))


@contextmanager
def drawing(seed: int, device: Optional[torch.device] = None) -> Iterator[None]:
    """Whatever draws inside without a generator of its own draws from `seed`; afterwards all is as it was.

    That is from the global generators of PyTorch (the CPU's and, of a GPU, the `device`'s), NumPy and Python.
    """
    legacy: Any = np.random  # these two are not in its stubs
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before, pythons, numpys = (
        [each.get_state() for each in generators],
        random.getstate(),
        legacy.get_bit_generator(),
    )
    legacy.set_bit_generator(_twister())  # exchanged, since to copy its state takes longer than many a job
    try:
        for each in generators:
            each.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        legacy.set_bit_generator(numpys)
        random.setstate(pythons)
        for each, state in zip(generators, before):
            each.set_state(state)


@lru_cache(maxsize=1)
def _twister() -> Any:
    """A bit generator that takes the place of NumPy's global one."""
    return np.random.MT19937()
