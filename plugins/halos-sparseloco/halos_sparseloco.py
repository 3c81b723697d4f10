"""SparseLoCo's payloads: of every chunk of a tensor the largest entries, in two bits each (arXiv 2508.15706)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

import torch

from halos import Exchange, Layout, Params, Payload, Register, hookimpl, require, rounded

WHOLE = 4096  # numbers of a full chunk, of which `k` are kept
LEVELS = 5  # fp32 numbers beside the codes of a tensor: their mean, and what each code stands for


@dataclass(frozen=True)
class SparseChunks:
    """The largest magnitudes of every chunk, where they are, and two bits of each (SparseLoCo, arXiv 2508.15706).

    Of equal ones the first are kept. A matrix is cut into tiles whose sides are the largest divisors of its own, 64 at
    most, a vector into pieces of its largest such divisor; a tensor of more dimensions is a matrix of its first one and
    the rest. The kept numbers of a tensor, of mean μ and standard deviation σ, have the code clip(round((v − μ) /
    (6σ/4) + 2), 0, 3), and arrive as the mean of all that have the same. μ travels as well, as in the authors' format,
    though no receiver needs it.
    """

    k: int = 128  # kept of a chunk of 4096 numbers; of a smaller one in proportion, rounded, at least one
    tile: int = 64  # the longest side of a chunk
    two_bit: bool = True  # false: kept numbers travel in fp32, as they are
    error_feedback: bool = True  # senders add what was lost to their next payload
    decay: float = 0.95  # β, what they add of it: e ← β e + Δ, minus what arrives
    gathered: ClassVar[bool] = True  # every sender keeps others, so that they cannot be summed under way

    def __post_init__(self) -> None:
        require(1 <= self.k <= WHOLE, "k", self.k, f"from 1 to {WHOLE}")
        require(self.tile >= 1, "tile", self.tile, "a positive number")
        require(0.0 <= self.decay <= 1.0, "decay", self.decay, "in [0, 1]")

    def wire_bytes(self, payload: Params) -> int:
        """Per tensor the kept entries' places, in as few bits as a chunk needs, and their codes, in whole bytes."""
        total = 0
        for shape in payload.layout.shapes.values():
            chunks, chunk = self._chunks(shape)
            kept = chunks * self._kept(chunk)
            place = (chunk - 1).bit_length()  # ⌈log2 c⌉
            if self.two_bit:
                total += -(-kept * (place + 2) // 8) + (4 * LEVELS if kept else 0)
            else:
                total += -(-kept * place // 8) + 4 * kept
        return total

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: self._arriving(flat, payload))

    def _arriving(self, flat: torch.Tensor, payload: Params) -> torch.Tensor:
        result = torch.empty_like(flat)
        for name, shape in payload.layout.shapes.items():
            piece = payload.layout.slice_of(name)
            (rows, columns), (a, b) = matrix(shape), self._tile(shape)
            down, across = rows // a, columns // b  # chunks, in each direction
            chunks = flat[piece].view(down, a, across, b).transpose(1, 2).reshape(-1, a * b)  # [chunks, numbers]
            kept = largest(chunks, self._kept(a * b))
            arrived = torch.zeros_like(chunks)
            arrived[kept] = two_bits(chunks[kept]) if self.two_bit else chunks[kept]
            result[piece] = arrived.view(down, across, a, b).transpose(1, 2).reshape(-1)
        return result

    def _tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        rows, columns = matrix(shape)
        return divisor(rows, self.tile), divisor(columns, self.tile)

    def _chunks(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """How many chunks there are of a tensor, and how many numbers in each."""
        a, b = self._tile(shape)
        return math.prod(shape) // (a * b), a * b

    def _kept(self, chunk: int) -> int:
        return min(chunk, max(1, rounded(self.k * chunk / WHOLE)))


def matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor as it is cut; a vector is one row."""
    return (shape[0], math.prod(shape[1:])) if len(shape) >= 2 else (1, math.prod(shape))


def divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is `most` at most."""
    return next((number for number in range(min(size, most), 0, -1) if size % number == 0), 1)


def largest(chunks: torch.Tensor, count: int) -> torch.Tensor:
    """Which are the `count` largest magnitudes of each row: a mask. Of equal ones the first."""
    sizes = torch.nan_to_num(chunks.abs(), nan=math.inf, posinf=math.inf)  # what is not finite comes first
    if not len(chunks):
        return torch.zeros_like(chunks, dtype=torch.bool)
    least = torch.topk(sizes, count, sorted=False).values.amin(1, keepdim=True)
    above, equal = sizes > least, sizes == least
    return above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))


def two_bits(values: torch.Tensor) -> torch.Tensor:
    """All kept values of a tensor as they arrive; NaN, all of them, if one is not finite."""
    if not values.numel():
        return values
    exact = values.double()
    mean, deviation = exact.mean(), exact.std() if len(exact) > 1 else exact.new_zeros(())
    if not torch.isfinite(mean):
        return torch.full_like(values, math.nan)
    step = 6.0 / 4.0 * torch.where(deviation > 0.0, deviation, 1.0)
    codes = torch.clamp(torch.round((exact - mean) / step + 2.0), 0, 3).long()
    levels = torch.stack([exact[codes == code].mean() for code in range(4)])  # NaN where there are none
    return levels.float().to(values.dtype)[codes]


@dataclass(frozen=True)
class MeanOfSenders:
    """Every number's mean over those who sent it, as the authors' code has it: whose is not 0. Nobody's stays 0.

    With relative weights w, Σ w Δ / Σ w over these. If payloads are no sparse ones, counts are summed beside them.
    """

    def combine(self, payloads: Iterable[Payload], state: None) -> tuple[Params, None]:
        total: Optional[Params] = None
        sent: Optional[Params] = None  # of every number, the weights of those who sent it
        for _, value, weight in payloads:
            weighed = value if weight == 1.0 else value * weight
            theirs = value.map(lambda flat, weight=weight: (flat != 0).to(flat.dtype) * weight)  # type: ignore[misc]
            total = weighed if total is None else total + weighed
            sent = theirs if sent is None else sent + theirs
        assert total is not None and sent is not None, "there is one at least"
        return Params.combine(lambda sums, weights: sums / torch.where(weights > 0, weights, 1.0), total, sent), None

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        """The sums, and counts of 0 to M in ⌈log2(M + 1)⌉ bits each."""
        return [Exchange(nbytes), Exchange(-(-layout.size * members.bit_length() // 8))]


@hookimpl
def register_codecs(register: Register) -> None:
    register("sparse_chunks", SparseChunks)


@hookimpl
def register_aggregators(register: Register) -> None:
    register("mean_of_senders", MeanOfSenders)
