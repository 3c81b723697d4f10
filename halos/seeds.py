"""Random generators: a fresh one per draw, so that leaving one draw out shifts no other."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def seed_for(seed: int, purpose: str, *ids: int) -> int:
    """Return a 63-bit seed from the run's seed, what the draw is for, and which one it is (SHA-256 of these)."""
    text = "/".join([str(seed), purpose, *map(str, ids)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def own_seed(component: Any, seed: int, key: str = "seed") -> int:
    """Return the seed that a component has as its field `key`; the run's `seed` if it has none."""
    own = getattr(component, key, None)
    return seed if own is None else int(own)


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """Return a NumPy generator for one draw (or one self-contained sequence of draws)."""
    return np.random.default_rng(seed_for(seed, purpose, *ids))
