"""Codecs for differences: integers in blocks, powers of two, signs, the largest entries, low-rank factors.

Each is what a payload becomes at the other end, and the bytes of an encoding that really exists; scales are fp32. A
number that is not finite makes everything that shares its scale NaN, so that a run that diverges is seen to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Optional

import torch

from halos import Codec, Fp32, Layout, Params, Register, Simulation, generator, hookimpl, require
from halos import rounded as nearest

logger = logging.getLogger(__name__)

SCALE = 4  # bytes, fp32
INDEX = 4  # bytes, an unsigned integer


@dataclass(frozen=True)
class Blocks:
    """So many bits a number, in blocks of consecutive numbers that share one fp32 scale."""

    bits: ClassVar[int]

    block: Optional[int] = 256  # null: all numbers are one block
    error_feedback: bool = False  # senders add what was lost to their next payload
    decay: float = 1.0  # what they add of it, with error_feedback; 1: all

    def __post_init__(self) -> None:
        check_block(self.block)
        check_decay(self.decay)

    def wire_bytes(self, payload: Params) -> int:
        return -(-payload.size * self.bits // 8) + SCALE * blocks(payload.size, self.block)


@dataclass(frozen=True)
class Int8(Blocks):
    """Whole multiples, −127 to 127, of each block's largest magnitude / 127."""

    bits: ClassVar[int] = 8

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: by_block(flat, self.block, lambda rows: rounded(rows, 127)))


@dataclass(frozen=True)
class Int4(Blocks):
    """Whole multiples, −7 to 7, of each block's largest magnitude / 7; two numbers a byte."""

    bits: ClassVar[int] = 4

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: by_block(flat, self.block, lambda rows: rounded(rows, 7)))


@dataclass(frozen=True)
class Fp4E3M0(Blocks):
    """Sign and three bits of exponent (arXiv 2501.18512): 0 or ± a block's largest magnitude · 2^−k, k = 0 … 6.

    To the nearest of these, upwards from the middle of two: an error of at most a third of the number, or
    1/128 of the block's largest magnitude for what is smaller than the smallest of them.
    """

    bits: ClassVar[int] = 4

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: by_block(flat, self.block, nearest_powers))


@dataclass(frozen=True)
class Sign(Blocks):
    """One bit a number, times each block's mean magnitude (arXiv 1901.09847); zero counts as positive."""

    bits: ClassVar[int] = 1

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(self._signs)

    def _signs(self, flat: torch.Tensor) -> torch.Tensor:
        def signs(rows: torch.Tensor) -> torch.Tensor:
            counts = torch.full((len(rows), 1), rows.shape[1], dtype=torch.float64, device=rows.device)
            counts[-1:] -= rows.numel() - flat.numel()  # the last block may be shorter
            scale = (rows.abs().sum(1, keepdim=True, dtype=torch.float64) / counts).float().to(rows.dtype)
            return torch.where(rows < 0, -scale, scale)

        return by_block(flat, self.block, signs)


@dataclass(frozen=True)
class TopK:
    """The largest magnitudes and where they are; of equal ones the first. Nothing of the rest."""

    fraction: float = 0.01  # of all numbers, rounded, at least one
    values: Codec = field(default_factory=Fp32)  # of the chosen numbers
    error_feedback: bool = False  # senders add what was lost to their next payload
    decay: float = 1.0  # what they add of it, with error_feedback; 1: all
    gathered: ClassVar[bool] = True  # every sender chooses others, so that they cannot be summed under way

    def __post_init__(self) -> None:
        require(0.0 < self.fraction <= 1.0, "fraction", self.fraction, "in (0, 1]")
        check_inner("values", self.values)
        check_decay(self.decay)

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(self._largest)

    def wire_bytes(self, payload: Params) -> int:
        count = self._count(payload.size)
        return INDEX * count + bytes_of(self.values, (count,))

    def _count(self, size: int) -> int:
        return min(size, max(1, nearest(self.fraction * size)))

    def _largest(self, flat: torch.Tensor) -> torch.Tensor:
        count = self._count(flat.numel())
        if not count:
            return flat
        sizes = torch.nan_to_num(flat.abs(), nan=math.inf, posinf=math.inf)  # what is not finite comes first
        least = torch.topk(sizes, count, sorted=False).values.min()
        larger = torch.nonzero(sizes > least)[:, 0]
        equal = torch.nonzero(sizes == least)[:, 0][: count - len(larger)]
        chosen = torch.cat([larger, equal]).sort().values
        result = torch.zeros_like(flat)
        result[chosen] = decoded(self.values, flat[chosen])
        return result


@dataclass(frozen=True)
class LowRank:
    """Two factors for every matrix: its projection on `rank` directions, found by orthogonal iteration.

    A matrix G [n, m], divided by its largest magnitude, becomes P [n, rank], orthonormal, and Q = Gᵀ P
    [m, rank]. A tensor of more dimensions is a matrix of its first one and the rest. What has fewer, and a
    matrix smaller than its factors, is sent as `rest` says, all of it as one vector.
    """

    rank: int = 4  # r, columns of P and Q
    iterations: int = 2  # P ← orth(G Q), Q ← Gᵀ P, from a matrix Q that all senders know
    factors: Codec = field(default_factory=Fp32)  # of P and Q, each column by column
    rest: Codec = field(default_factory=Fp32)  # of tensors that are no matrices
    seed: int = 0  # of the first Q
    error_feedback: bool = False  # senders add what was lost to their next payload
    decay: float = 1.0  # what they add of it, with error_feedback; 1: all
    gathered: ClassVar[bool] = True  # every sender has factors of its own, which cannot be summed

    def __post_init__(self) -> None:
        require(self.rank >= 1, "rank", self.rank, "a positive number")
        require(1 <= self.iterations <= 1000, "iterations", self.iterations, "from 1 to 1000")
        require(self.seed >= 0, "seed", self.seed, "zero or a positive number")
        check_inner("factors", self.factors)
        check_inner("rest", self.rest)
        check_decay(self.decay)

    def prepare(self, sim: Simulation) -> None:
        """Say so if nothing of the model would be compressed."""
        if not self._matrices(sim.params.layout):
            logger.warning(
                "codec low_rank: no matrix of this model is larger than its factors of rank %d, so all of it travels as"
                " `rest`, and to everybody: that is more than an all-reduce of the same without this codec",
                self.rank,
            )

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: self._approximation(flat, payload.layout))

    def wire_bytes(self, payload: Params) -> int:
        total, rest = 0, payload.size
        for n, m in self._matrices(payload.layout).values():
            total += SCALE + bytes_of(self.factors, (self.rank, n)) + bytes_of(self.factors, (self.rank, m))
            rest -= n * m
        return total + bytes_of(self.rest, (rest,))

    def _matrices(self, layout: Layout) -> dict[str, tuple[int, int]]:
        """Rows and columns of what is sent as factors, by name."""
        found = {}
        for name, shape in layout.shapes.items():
            n, m = (shape[0], math.prod(shape[1:])) if len(shape) >= 2 else (1, 1)
            if self.rank * (n + m) < n * m:
                found[name] = (n, m)
        return found

    def _approximation(self, flat: torch.Tensor, layout: Layout) -> torch.Tensor:
        result, other = torch.empty_like(flat), torch.ones_like(flat, dtype=torch.bool)
        for name, shape in self._matrices(layout).items():
            piece = layout.slice_of(name)
            result[piece] = self._product(flat[piece].view(shape)).reshape(-1)
            other[piece] = False
        result[other] = decoded(self.rest, flat[other])
        return result

    def _product(self, matrix: torch.Tensor) -> torch.Tensor:
        scale = scales(matrix.abs().amax().reshape(1, 1), 1).to(matrix.dtype)
        if not bool(scale > 0):  # zeros, or not finite
            return torch.zeros_like(matrix) + scale
        g, columns = matrix / scale, matrix.shape[1]
        start = generator(self.seed, "low_rank", columns, self.rank).standard_normal((columns, self.rank))
        q = torch.from_numpy(start).to(g)
        for _ in range(self.iterations):
            p = orthonormal(g @ orthonormal(q))  # P ← orth(G Q)
            q = g.T @ p  # Q ← Gᵀ P
        return decoded(self.factors, p.T).T @ decoded(self.factors, q.T) * scale  # P Qᵀ


def orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of what the columns span, and more directions if they are dependent."""
    wide = columns if columns.dtype == torch.float64 else columns.float()  # there is none in half precision
    basis: torch.Tensor = torch.linalg.qr(wide).Q
    return basis.to(columns)


def blocks(size: int, block: Optional[int]) -> int:
    """How many blocks so many numbers make; the last may be shorter."""
    return -(-size // (block or max(1, size)))


def by_block(flat: torch.Tensor, block: Optional[int], code: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`code` of the blocks, a row each, the last filled up with zeros."""
    rows, size = blocks(flat.numel(), block), flat.numel()
    length = max(1, size if block is None else min(block, size))
    return code(torch.nn.functional.pad(flat, (0, rows * length - size)).view(rows, length)).view(-1)[:size]


def scales(largest: torch.Tensor, levels: int) -> torch.Tensor:
    """What the largest magnitudes are `levels` times of, in fp32; NaN where that is not finite."""
    exact = largest.double() / levels
    scale = exact.float()
    coarse = scale.double() * (levels + 0.5) < exact * levels  # among the denormal numbers, the next is far
    scale = torch.where(coarse, torch.nextafter(scale, torch.full_like(scale, math.inf)), scale)
    over = scale.double() * levels > torch.finfo(torch.float32).max  # their multiples must not become infinite
    scale = torch.where(over, torch.nextafter(scale, torch.zeros_like(scale)), scale)
    return torch.where(exact.float().isfinite(), scale, math.nan)


def relative(rows: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows in units of their scales, and these: [rows, 1], zero of nothing but zeros."""
    scale = scales(rows.abs().amax(1, keepdim=True), levels).to(rows.dtype)
    return rows / torch.where(scale == 0, 1.0, scale), scale


def rounded(rows: torch.Tensor, levels: int) -> torch.Tensor:
    """Each row in whole multiples of its largest magnitude / levels."""
    units, scale = relative(rows, levels)
    return units.round_().clamp_(-levels, levels) * scale


def nearest_powers(rows: torch.Tensor) -> torch.Tensor:
    """Each row in 0 and ± 1, 1/2, … 1/64 of its largest magnitude."""
    units, scale = relative(rows, 1)
    powers = torch.tensor([0.0, *(2.0**-k for k in range(6, -1, -1))], dtype=rows.dtype, device=rows.device)
    middles = (powers[1:] + powers[:-1]) / 2
    return (powers[torch.bucketize(units.abs(), middles, right=True)] * scale).copysign(rows)


def decoded(codec: Codec, values: torch.Tensor) -> torch.Tensor:
    """Part of a payload, of any shape, as decoded at the other end."""
    if not values.numel():
        return values
    layout = Layout({"values": tuple(values.shape)}, values.dtype)
    flat = codec.roundtrip(Params(layout, values.reshape(-1))).flat
    assert flat is not None, "a payload with values arrives with values"
    return flat.view(values.shape)


def bytes_of(codec: Codec, shape: tuple[int, ...]) -> int:
    """Of a part of that shape."""
    return codec.wire_bytes(Params(Layout({"values": shape}), None)) if math.prod(shape) else 0


def check_block(block: Optional[int]) -> None:
    require(block is None or block >= 1, "block", block, "a positive number, or null for one block")


def check_decay(decay: float) -> None:
    require(0.0 <= decay <= 1.0, "decay", decay, "in [0, 1]")


def check_inner(key: str, codec: Codec) -> None:
    problem = "possible inside another codec; the outer one's counts"
    require(not getattr(codec, "error_feedback", False), f"{key}.error_feedback", True, problem)


@hookimpl
def register_codecs(register: Register) -> None:
    register("int8", Int8)
    register("int4", Int4)
    register("fp4_e3m0", Fp4E3M0)
    register("sign", Sign)
    register("topk", TopK)
    register("low_rank", LowRank)
