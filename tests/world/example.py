"""Bandwidths of the example environment, in Gbit/s."""

from __future__ import annotations

EXAMPLE = [
    [100.0, 0.537, 0.935, 0.202],
    [0.537, 100.0, 0.386, 0.117],
    [0.935, 0.386, 100.0, 0.127],
    [0.202, 0.117, 0.127, 100.0],
]
