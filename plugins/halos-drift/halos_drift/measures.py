"""The formulas, as functions of flat tensors and numbers; what is undefined is None, never 0.

Sums are in float64, over blocks that stay in a processor's cache, of differences in the tensors' own precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Optional

import torch

BLOCK = 1 << 17  # numbers at a time
GAP_DECAY = 0.999  # of Barkai's average of squared steps
LOGITS = 1 << 20  # logits at a time


def dot(*factors: torch.Tensor) -> float:
    """Return Σ_j of the product of all factors' j-th elements: ⟨x, y⟩, or Σ w x y (w x in their own precision)."""
    total = 0.0
    *most, last = factors
    for first in range(0, last.numel(), BLOCK):
        end = min(first + BLOCK, last.numel())
        product, other = (each[: end - first] for each in _scratch(last.device))
        several = most[0][first:end]
        for each in most[1:]:
            several = several * each[first:end]
        product.copy_(several)
        total += float(torch.dot(product, other.copy_(last[first:end])))
    return total


@lru_cache(maxsize=2)
def _scratch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Two blocks that are written before they are read: to have new ones costs more than a product."""
    return torch.empty(BLOCK, dtype=torch.float64, device=device), torch.empty(
        BLOCK, dtype=torch.float64, device=device
    )


def norm(x: torch.Tensor) -> float:
    """Return ‖x‖₂."""
    return math.sqrt(dot(x, x))


def ratio(above: Optional[float], below: Optional[float]) -> Optional[float]:
    """Return one over the other; None where either is unknown or infinite, or the lower is 0."""
    if above is None or below is None or below == 0.0 or not (math.isfinite(above) and math.isfinite(below)):
        return None
    return above / below


def cosine(inner: Optional[float], one: Optional[float], other: Optional[float]) -> Optional[float]:
    """Return inner / (one · other), from an inner product and two norms; None where a norm is 0, or unknown.

    Of unit vectors, rounding aside, so it is kept within ±1.
    """
    if one is None or other is None or one == 0.0 or other == 0.0:
        return None
    found = ratio(ratio(inner, one), other)
    return None if found is None else max(-1.0, min(1.0, found))


def tree_distance(since: int, earlier: int, steps: int, apart: int = 0) -> int:
    """Return R of one contribution: the larger number of edges to the last common ancestor (arXiv 2505.09218).

    `since`: steps in the target since that ancestor; `earlier`: of the same commit, merged before; `steps`: its own;
    `apart`: from the ancestor to its base, 0 where the base is the ancestor. At its last gradient, before its step.
    """
    return max(since + earlier + steps - 1, apart + steps - 1)


class TypicalStep:
    """C of Barkai et al. (arXiv 1909.10802): the size of a server's typical step, per parameter.

    C = √(e / (1 − .999^n)) over its n steps, e ← .999 e + .001 ‖step‖² / P.
    """

    def __init__(self) -> None:
        self._mean = 0.0  # e
        self._steps = 0  # n

    def add(self, step_norm: float, size: int) -> None:
        """One more step of the server."""
        self._mean = GAP_DECAY * self._mean + (1.0 - GAP_DECAY) * step_norm**2 / size
        self._steps += 1

    def gap(self, drift: float, size: int) -> Optional[float]:
        """Return (‖d‖ / √P) / C, how many typical steps so far that is; 0 for no drift, else None before any step."""
        if drift == 0.0:
            return 0.0
        if self._steps == 0:
            return None
        typical = math.sqrt(self._mean / (1.0 - GAP_DECAY**self._steps))
        return ratio(drift / math.sqrt(size), typical)


class TypicalElements:
    """C_j of the same, element by element: the size of a server's typical step in each parameter.

    C_j = √(e_j / (1 − .999^n)) over n steps, e_j ← .999 e_j + .001 step_j².
    """

    def __init__(self, mean: Optional[torch.Tensor] = None, steps: int = 0) -> None:
        self.mean = mean  # e, float64 [P]
        self.steps = steps  # n

    def add(self, step: torch.Tensor) -> None:
        """One more step of the server, [P]."""
        if self.mean is None:
            self.mean = torch.zeros(len(step), dtype=torch.float64, device=step.device)
        for first in range(0, len(step), BLOCK):
            block = step[first : first + BLOCK].double()
            self.mean[first : first + BLOCK].mul_(GAP_DECAY).addcmul_(block, block, value=1.0 - GAP_DECAY)
        self.steps += 1

    def gap(self, d: torch.Tensor) -> Optional[float]:
        """Return the mean of |d_j| / C_j over those elements that any step has moved; None if none has."""
        if self.mean is None:
            return None
        total, moved, unbiased = 0.0, 0, 1.0 - GAP_DECAY**self.steps
        for first in range(0, len(d), BLOCK):
            squares = self.mean[first : first + BLOCK] / unbiased
            several = d[first : first + BLOCK].double().abs() / squares.sqrt()
            counted = squares > 0.0
            total += float(torch.where(counted, several, 0.0).sum())
            moved += int(counted.sum())
        return ratio(total, moved)


class Together:
    """Vectors of one commit, by sums alone, so without pairs and without holding them."""

    def __init__(self) -> None:
        self._count = 0  # M
        self._defined = True
        self._squares = 0.0  # Σ ‖Δ_i‖²
        self._sum: Optional[torch.Tensor] = None  # Σ Δ_i
        self._units: Optional[torch.Tensor] = None  # Σ Δ_i / ‖Δ_i‖

    def add(self, vector: torch.Tensor, length: float) -> None:
        """One more, of norm `length`; all are of one size."""
        self._count += 1
        self._squares += length**2
        if self._sum is None or self._units is None:
            self._sum, self._units = torch.zeros(2, vector.numel(), dtype=torch.float64, device=vector.device)
        self._sum.add_(vector)
        if not 0.0 < length < math.inf:
            self._defined = False
        elif self._defined:
            self._units.add_(vector, alpha=1.0 / length)

    def spread(self) -> Optional[float]:
        """Return the mean pairwise cosine of M vectors: (‖Σ Δ̂_i‖² − M) / (M (M − 1)), Δ̂ their unit vectors.

        None of fewer than two, or where one is 0.
        """
        count = self._count
        if count < 2 or not self._defined or self._units is None:
            return None
        return max(-1.0, min(1.0, (dot(self._units, self._units) - count) / (count * (count - 1))))

    def consensus(self) -> Optional[float]:
        """Return Ξ² = mean_i ‖θ_i − θ̄‖² of M workers that went −Δ_i each from one start: mean ‖Δ_i‖² − ‖mean Δ‖².

        None of fewer than two, or where one is not finite.
        """
        if self._count < 2 or self._sum is None:
            return None
        found = self._squares / self._count - dot(self._sum, self._sum) / self._count**2
        return max(0.0, found) if math.isfinite(found) else None


def divergences(one: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """Return KL(p ‖ q) and JS(p, q), sums over positions in nats; p and q by logits [positions, classes].

    JS = ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q): at most ln 2 each.
    """
    rows = max(1, LOGITS // one.shape[1])
    forward = between = 0.0
    for first in range(0, len(one), rows):
        p, q = (each[first : first + rows].double().log_softmax(-1) for each in (one, other))
        forward += float(_mean(p, p - q).clamp(min=0.0).sum())
        js = 0.5 * (_mean(p, _from_middle(p, q)) + _mean(q, _from_middle(q, p)))
        between += float(js.clamp(0.0, math.log(2.0)).sum())
    return forward, between


def _mean(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The mean of values over classes of log-probabilities p, of each position; a class of probability 0 counts 0."""
    weights = p.exp()
    return torch.where(weights > 0.0, weights * values, 0.0).sum(-1)


def _from_middle(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """log p − log ½ (p + q), which is exactly 0 where both are equal."""
    return math.log(2.0) - torch.nn.functional.softplus(q - p, threshold=50.0)


def slices(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, slice]]:
    """Yield where each named tensor lies in the flat vector."""
    first = 0
    for name, shape in shapes.items():
        end = first + math.prod(shape)
        yield name, slice(first, end)
        first = end
