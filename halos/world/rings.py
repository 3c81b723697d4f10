"""Rings: the best directed way around all regions, for collectives."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

EXACT_RING = 20  # regions up to which the best ring is found exactly; 2^20 subsets are the limit of patience


def best_ring(bandwidth: NDArray[np.float64]) -> float:
    """Return the largest bandwidth at which some directed ring through all regions exists.

    Exact up to EXACT_RING regions, by binary search over the links' values. Above, a bounded search
    finds a good ring, so the number is one that can be had, though perhaps not the best; a warning
    says so.
    """
    regions = len(bandwidth)
    if regions == 1:
        return float(bandwidth[0, 0])
    links = np.unique(bandwidth[~np.eye(regions, dtype=bool)])
    # No ring is better than the worst region's best way in or out.
    wide = np.where(np.eye(regions, dtype=bool), 0.0, bandwidth)
    top = int(np.searchsorted(links, min(wide.max(axis=0).min(), wide.max(axis=1).min())))
    if regions > EXACT_RING:
        logger.warning("%d regions: the best all-reduce ring is only searched for, not proven", regions)
        step = 1
        while top > 0 and not _finds_ring(_neighbours(bandwidth >= links[top])):
            top, step = max(0, top - step), 2 * step
        return float(links[top])
    low = 0  # at the smallest value there is always a ring
    while low < top:
        middle = (low + top + 1) // 2
        if _has_ring(_neighbours(bandwidth >= links[middle])):
            low = middle
        else:
            top = middle - 1
    return float(links[low])


def _neighbours(allowed: NDArray[np.bool_]) -> list[int]:
    """Return, per region, the bit mask of the regions it may come *from*."""
    regions = len(allowed)
    return [sum(1 << i for i in range(regions) if i != j and allowed[i, j]) for j in range(regions)]


def _has_ring(sources: list[int]) -> bool:
    """Whether a directed Hamiltonian cycle exists (Held-Karp over subsets, one subset size at a time)."""
    regions = len(sources)
    if any(mask == 0 for mask in sources):
        return False
    ends = np.zeros(1 << regions, dtype=np.uint32)  # per visited set, where a path from region 0 through it may end
    ends[1] = 1
    layer = np.array([1], dtype=np.int64)
    for _ in range(regions - 1):
        following = []
        for region in range(1, regions):
            bit = 1 << region
            extended = layer[((layer & bit) == 0) & ((ends[layer] & sources[region]) != 0)] | bit
            ends[extended] |= np.uint32(bit)
            following.append(extended)
        layer = np.unique(np.concatenate(following))
    return bool(ends[-1] & sources[0])


def _finds_ring(sources: list[int], expansions: int = 20_000) -> bool:
    """Whether a bounded depth-first search, fewest ways onward first, finds a directed ring."""
    regions = len(sources)
    targets = [[j for j in range(regions) if sources[j] >> i & 1] for i in range(regions)]
    path, visited = [0], 1
    choices = [sorted(targets[0], key=lambda j: len(targets[j]), reverse=True)]
    for _ in range(expansions):
        if len(path) == regions and sources[0] >> path[-1] & 1:
            return True
        if choices[-1]:
            following = choices[-1].pop()
            if visited >> following & 1:
                continue
            path.append(following)
            visited |= 1 << following
            open_targets = [j for j in targets[following] if not visited >> j & 1]
            onward = {j: sum(not visited >> k & 1 for k in targets[j]) for j in open_targets}
            choices.append(sorted(open_targets, key=lambda j: onward[j], reverse=True))
        else:
            choices.pop()
            visited &= ~(1 << path.pop())
            if not path:
                return False
    return False
