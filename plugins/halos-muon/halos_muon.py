"""Muon: steps of matrices by their orthogonal factors, and of everything else by AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, Optional, TypeAlias, Union

import torch

from halos import AdamW, ConfigError, Layout, Moments, Register, hookimpl, require

# Embeddings and heads: of gpt_neox, and of the models that transformers names so.
EMBEDDINGS = (
    *("embed_in.weight", "embed_out.weight", "lm_head.weight", "wte.weight", "wpe.weight", "embed_tokens.weight"),
    *("embed_positions.weight", "word_embeddings.weight", "position_embeddings.weight"),
)
# (a, b, c) of each iteration. By `jordan` singular values from 0.01 on end in [0.682, 1.134], by all five of `muloco`
# in [0.978, 1.032].
COEFFICIENTS = {
    "jordan": ((3.4445, -4.7750, 2.0315),) * 5,
    "muloco": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
Rate: TypeAlias = "Union[float, torch.Tensor]"  # of one worker, or of each of several, [rows, 1]


class Group(NamedTuple):
    """Matrices of one shape."""

    shape: tuple[int, int]  # [n, m], of which the first is the fan-out
    places: list[tuple[slice, slice]]  # where each lies: in parameters [P], and in Muon's momentum


class Divided(NamedTuple):
    """A layout, divided between Muon and AdamW."""

    matrices: tuple[slice, ...]  # of the parameters
    groups: list[Group]
    rest: tuple[slice, ...]
    rest_layout: Layout


@dataclass
class Others(AdamW):
    """AdamW for what is no matrix between embedding and head."""

    lr: float = 3.0e-4  # the largest learning rate, which the schedule scales as it does Muon's
    eps: float = 1.0e-10  # beside the root of the mean square
    weight_decay: float = 0.01  # of embeddings, heads, and whatever else has two or more dimensions


@dataclass
class Muon:
    """Muon (K. Jordan's code; coefficients and forms also as in MuLoCo's, arXiv 2505.23725, and in PyTorch's).

    Of every matrix G [n, m] between embedding and head, as slices of the flat vectors; tensors of more than two
    dimensions are flattened to [n, the rest]. Everything else is AdamW's.
    """

    lr: float = 0.02  # the largest learning rate, of matrices
    momentum: float = 0.95  # β, or μ
    nesterov: bool = True  # look ahead: mix the gradient into the momentum once more
    form: Literal["average", "sum"] = "average"  # of the momentum: m ← β m + (1−β) g, or m ← μ m + g
    coefficients: Literal["jordan", "muloco"] = "jordan"  # of the iteration: one triple for all steps, or one for each
    steps: int = 5  # of the iteration, at most five
    # What O is multiplied with beside the rate: max1 √max(1, n/m); spectral √(n/m); rms 0.2 √max(n, m), for rates such
    # as AdamW's; none 1.
    scale: Literal["max1", "spectral", "rms", "none"] = "max1"
    weight_decay: float = 0.0  # of matrices
    bfloat16: bool = False  # iterate in half precision, as the authors do on GPUs
    # What is left to AdamW, though it has two or more dimensions: names, or ends of names that begin after a dot.
    embeddings: list[str] = field(default_factory=lambda: list(EMBEDDINGS))
    adamw: Others = field(default_factory=Others)  # of everything else

    def __post_init__(self) -> None:
        for key in ("lr", "weight_decay"):
            require(0.0 <= getattr(self, key) <= 1e30, key, getattr(self, key), "zero or a positive number up to 1e30")
        require(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "in [0, 1)")
        require(1 <= self.steps <= 5, "steps", self.steps, "from 1 to 5")
        if self.lr == 0.0 and self.adamw.lr > 0.0:
            raise ConfigError("lr", "0.0, and adamw.lr is not: it is scaled as this one is")

    def init(self, layout: Layout, device: torch.device) -> Moments:
        parts = self._divided(layout)
        size = length(parts.matrices)
        state = self.adamw.init(parts.rest_layout, device) if parts.rest else {}
        if size:
            state["momentum"] = torch.zeros(size, dtype=layout.dtype, device=device)
        return state

    def step(self, params: torch.Tensor, grad: torch.Tensor, state: Moments, lr: float, layout: Layout) -> None:
        parts = self._divided(layout)
        if parts.groups:
            momentum, decay = state["momentum"], 1.0 - lr * self.weight_decay
            self._step_matrices(params[None], grad[None], momentum[None], lr, decay, parts)
        if parts.rest:
            some, along = gathered(params, parts.rest), gathered(grad, parts.rest)
            self.adamw.step(some, along, state, lr * self._ratio, parts.rest_layout)
            scattered(some, params, parts.rest)

    def step_rows(
        self, params: torch.Tensor, grad: torch.Tensor, state: Moments, rates: torch.Tensor, layout: Layout
    ) -> Callable[[int], None]:
        parts = self._divided(layout)
        lrs, decays = (each[..., None].to(params) for each in (rates, 1.0 - rates * self.weight_decay))
        rest: Optional[Callable[[int], None]] = None
        if parts.rest:
            some, along = gathered(params, parts.rest), gathered(grad, parts.rest)
            rest = self.adamw.step_rows(some, along, state, rates * self._ratio, parts.rest_layout)

        def take(at: int) -> None:
            if parts.groups:
                self._step_matrices(params, grad, state["momentum"], lrs[at], decays[at], parts)
            if rest is not None:
                along.copy_(gathered(grad, parts.rest))
                rest(at)
                scattered(some, params, parts.rest)

        return take

    def _step_matrices(
        self, params: torch.Tensor, grad: torch.Tensor, momentum: torch.Tensor, lr: Rate, decay: Rate, parts: Divided
    ) -> None:
        """Step the matrices in each row of `params` [rows, P]; momenta are [rows, n]."""
        g, beta = gathered(grad, parts.matrices), self.momentum
        fresh = 1.0 - beta if self.form == "average" else 1.0
        momentum.mul_(beta).add_(g, alpha=fresh)  # m ← β m + (1−β) g, or m ← μ m + g
        u = g.mul_(fresh).add_(momentum, alpha=beta) if self.nesterov else momentum
        for (n, m), places in parts.groups:
            several = torch.stack([u[:, piece].unflatten(1, (n, m)) for _, piece in places], 1)  # [rows, k, n, m]
            o = self.orthogonal(several.flatten(0, 1)).reshape(len(u), len(places), n * m)
            for index, (piece, _) in enumerate(places):
                by = lr * self._size(n, m)
                params[:, piece].mul_(decay).sub_(o[:, index] * by)  # θ ← (1 − lr·wd) θ − lr · s · O

    def orthogonal(self, u: torch.Tensor) -> torch.Tensor:
        """Return about U Vᵀ of each of several matrices U S Vᵀ [k, n, m]; of one that is zero, zero."""
        x = u.bfloat16() if self.bfloat16 else u
        x = x.mT if x.shape[1] > x.shape[2] else x
        x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
        for a, b, c in COEFFICIENTS[self.coefficients][: self.steps]:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a X + (b A + c A²) X
        return (x.mT if u.shape[1] > u.shape[2] else x).to(u.dtype)

    @property
    def _ratio(self) -> float:
        """AdamW's rate, where Muon's is 1."""
        return self.adamw.lr / self.lr if self.lr else 0.0

    def _size(self, n: int, m: int) -> float:
        sizes = {"max1": math.sqrt(max(1.0, n / m)), "spectral": math.sqrt(n / m), "rms": 0.2 * math.sqrt(max(n, m))}
        return sizes.get(self.scale, 1.0)

    def _divided(self, layout: Layout) -> Divided:
        return divided(layout, tuple(self.embeddings))


@lru_cache(maxsize=64)
def divided(layout: Layout, embeddings: tuple[str, ...]) -> Divided:
    """Return what of a layout is Muon's. Raises ConfigError for a name of one's own that no tensor has."""
    ends = {name: [end for end in embeddings if f".{name}".endswith(f".{end}")] for name in layout.shapes}
    known = {end for found in ends.values() for end in found}
    strange = [end for end in embeddings if end not in known and end not in EMBEDDINGS]
    if strange:
        raise ConfigError("embeddings", f"no tensor is called {strange[0]!r}; there are: {', '.join(layout.shapes)}")
    muon = [name for name, shape in layout.shapes.items() if len(shape) >= 2 and all(shape) and not ends[name]]
    groups: dict[tuple[int, int], Group] = {}
    at = 0
    for name in muon:
        piece, shape = layout.slice_of(name), layout.shapes[name]
        size = piece.stop - piece.start
        group = groups.setdefault((shape[0], size // shape[0]), Group((shape[0], size // shape[0]), []))
        group.places.append((piece, slice(at, at + size)))
        at += size
    matrices = tuple(layout.slice_of(name) for name in muon)
    rest = tuple(layout.slice_of(name) for name in layout.shapes if name not in muon)
    return Divided(matrices, list(groups.values()), rest, layout.part(rest))


def length(pieces: Sequence[slice]) -> int:
    """Return how many numbers slices hold."""
    return sum(piece.stop - piece.start for piece in pieces)


def gathered(vectors: torch.Tensor, pieces: Sequence[slice]) -> torch.Tensor:
    """Return slices of a vector [P], or of several [rows, P], one after another, copied.

    Rows are apart from each other, so that no kernel takes them for one vector: what comes of one does not depend on
    which it is.
    """
    size = length(pieces)
    room = vectors.new_empty(*vectors.shape[:-1], size + 16)[..., :size]
    at = 0
    for piece in pieces:
        room[..., at : at + piece.stop - piece.start] = vectors[..., piece]
        at += piece.stop - piece.start
    return room


def scattered(some: torch.Tensor, vectors: torch.Tensor, pieces: Sequence[slice]) -> None:
    """Write back what was gathered."""
    at = 0
    for piece in pieces:
        vectors[..., piece] = some[..., at : at + piece.stop - piece.start]
        at += piece.stop - piece.start


@hookimpl
def register_inner_optimizers(register: Register) -> None:
    register("muon", Muon)
