"""Model parameters as values: one flat tensor, a shared layout, arithmetic that never modifies.

In timing mode, and when a run is replayed, parameters are *hollow*: they carry their layout and
serial number but no tensor, and arithmetic on them costs a serial number instead of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Optional

import torch

Fragment = tuple[slice, ...]  # slices of the flat vector, in order
BLOCK = 1 << 17  # numbers converted to float64 at a time, so that they stay in a processor's cache
NO_VERSIONS: Mapping[str, int] = MappingProxyType({})


class Serials:
    """Serial numbers of a run's parameters, in order of creation, and the numbers that come out of them.

    Whoever wants to resume a run replaces `give` and `number`.
    """

    __slots__ = ("give", "last", "number")

    def __init__(self) -> None:
        self.last = -1
        self.give: Optional[Callable[[Params], int]] = None  # None: the next one
        # What a function returns of its arguments, or, in a replay, returned; None: what it returns.
        self.number: Optional[Callable[..., float]] = None


class Layout:
    """Where each named tensor lies in the flat vector; immutable, shared by a run's parameters.

    Tensors with two or more dimensions come first: they are the ones weight decay applies to, so
    that it is one slice, `[0, decayed)`.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: Optional[torch.dtype] = None) -> None:
        decayed = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
        others = {name: shape for name, shape in shapes.items() if len(shape) < 2}
        self._lay_out({**decayed, **others}, torch.float32 if dtype is None else dtype)
        self.serials = Serials()
        self.fragment: Optional[Fragment] = None  # where it lies in the run's whole layout, of a part of that

    def _lay_out(self, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        """Place tensors one after another, in the order given."""
        self.shapes = shapes
        self.dtype = dtype
        self.offsets: dict[str, int] = {}
        self.size = 0  # parameters in all
        self.decayed = 0  # of these, how many belong to tensors with two or more dimensions
        for name, shape in shapes.items():
            self.offsets[name] = self.size
            self.size += math.prod(shape)
            if len(shape) >= 2:
                self.decayed = self.size
        self._parts: dict[tuple[tuple[int, int], ...], Layout] = {}

    def slice_of(self, name: str) -> slice:
        """Return the slice of the flat vector that holds tensor `name`. Raises KeyError if there is none."""
        start = self.offsets[name]
        return slice(start, start + math.prod(self.shapes[name]))

    def part(self, fragment: Fragment) -> Layout:
        """Return the layout of `params[fragment]`: whole tensors keep name and shape, pieces of one become vectors.

        Serial numbers are the whole run's. Raises IndexError for a slice beyond the flat vector.
        """
        key = tuple((piece.start, piece.stop) for piece in fragment)
        if key not in self._parts:
            for start, stop in key:
                if not 0 <= start <= stop <= self.size:
                    raise IndexError(f"slice {start}:{stop} of {self.size} parameters")
            part: Layout = object.__new__(Layout)
            part._lay_out({name: shape for start, stop in key for name, shape in self._pieces(start, stop)}, self.dtype)
            part.serials = self.serials
            part.fragment = fragment if self.fragment is None else _inside(self.fragment, fragment)
            self._parts[key] = part
        return self._parts[key]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each tensor, or piece of one, between two offsets."""
        for name, shape in self.shapes.items():
            first = self.offsets[name]
            low, high = max(start, first), min(stop, first + math.prod(shape))
            if low < high:
                whole = high - low == math.prod(shape)
                yield (name, shape) if whole else (f"{name}[{low - first}:{high - first}]", (high - low,))


def _inside(outer: Fragment, inner: Fragment) -> Fragment:
    """Return `inner`, slices of what `outer` picks, as slices of what that picks from."""
    found = []
    for piece in inner:
        first = 0  # of this outer slice, in what all of them make up
        for each in outer:
            low, high = max(piece.start, first), min(piece.stop, first + each.stop - each.start)
            if low < high:
                found.append(slice(each.start + low - first, each.start + high - first))
            first += each.stop - each.start
    return tuple(found)


class Params:
    """One set of parameters (or of differences of such), never modified in place.

    `flat` is one contiguous vector in layout order, or None when hollow. `versions` says which
    version this is of each server it was committed to.
    """

    __slots__ = ("__weakref__", "flat", "layout", "serial", "versions")

    def __init__(self, layout: Layout, flat: torch.Tensor | None) -> None:
        self.layout = layout
        self.flat = flat
        if flat is not None and flat.shape != (layout.size,):
            raise ValueError(f"a flat vector of shape {tuple(flat.shape)} for {layout.size} parameters")
        serials = layout.serials
        if serials.give is None:  # the usual case, without a call: parameters are made often
            self.serial = serials.last = serials.last + 1
        else:
            self.serial = serials.give(self)
        self.versions: Mapping[str, int] = NO_VERSIONS

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor], layout: Layout) -> Params:
        """Make parameters from named tensors, copied. Raises ValueError unless their shapes match the layout."""
        flat = torch.empty(layout.size, dtype=layout.dtype)
        for name, shape in layout.shapes.items():
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {shape}")
            flat[layout.slice_of(name)] = tensors[name].reshape(-1).to(layout.dtype)
        return cls(layout, flat)

    @property
    def hollow(self) -> bool:
        """Whether there is no tensor, only a layout and a serial number."""
        return self.flat is None

    @property
    def size(self) -> int:
        """The number of parameters, hollow or not."""
        return self.layout.size

    def shell(self) -> Params:
        """Return a hollow stand-in with the same layout, serial and versions: keeps no tensor alive."""
        shell: Params = object.__new__(Params)
        shell.layout, shell.flat, shell.serial, shell.versions = self.layout, None, self.serial, self.versions
        return shell

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the named tensors, as views: read, do not write. Raises ValueError when hollow."""
        flat = self._data()
        return {name: flat[self.layout.slice_of(name)].view(shape) for name, shape in self.layout.shapes.items()}

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Params:
        """Return `fn` of the flat vector as new parameters; hollow ones, without calling it, when hollow."""
        return Params(self.layout, None if self.flat is None else fn(self.flat))

    @staticmethod
    def combine(fn: Callable[..., torch.Tensor], *several: Params) -> Params:
        """Return `fn` of several flat vectors as new parameters; hollow ones, without calling it, if one of them is.

        Raises ValueError for parameters of different sizes.
        """
        layout, hollow = several[0].layout, False
        for params in several:
            if params.layout is not layout and params.layout.size != layout.size:
                raise ValueError("parameters of different layouts: " + ", ".join(str(other.size) for other in several))
            if params.flat is None:
                hollow = True
        return Params(layout, None if hollow else fn(*[params.flat for params in several]))

    def __add__(self, other: Params) -> Params:
        if self.flat is None and self.layout is other.layout:  # as `combine` does, at half the price
            return Params(self.layout, None)
        return Params.combine(torch.add, self, other)

    def __sub__(self, other: Params) -> Params:
        if self.flat is None and self.layout is other.layout:
            return Params(self.layout, None)
        return Params.combine(torch.sub, self, other)

    def __mul__(self, factor: float) -> Params:
        return self.map(lambda flat: flat * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Params:
        return self.map(lambda flat: flat / divisor)

    def __neg__(self) -> Params:
        return self.map(torch.neg)

    def zeros(self) -> Params:
        """Return zeros of the same layout."""
        return Params(self.layout, None if self.flat is None else torch.zeros_like(self.flat))

    def __getitem__(self, fragment: Fragment) -> Params:
        """Return the parameters in `fragment`, one after another (copied). Raises IndexError beyond the flat vector."""
        flat = None if self.flat is None else torch.cat([self.flat[piece] for piece in fragment])
        return Params(self.layout.part(fragment), flat)

    def replace(self, fragment: Fragment, part: Params) -> Params:
        """Return these parameters with those in `fragment` replaced by `part`. Raises ValueError for another size."""
        if self.layout.part(fragment).size != part.size:
            raise ValueError(f"{part.size} parameters for a fragment of {self.layout.part(fragment).size}")
        if self.flat is None or part.flat is None:
            return Params(self.layout, None)
        flat, position = self.flat.clone(), 0
        for piece in fragment:
            length = piece.stop - piece.start
            flat[piece] = part.flat[position : position + length]
            position += length
        return Params(self.layout, flat)

    def norm(self) -> float:
        """Euclidean norm, accumulated in float64; NaN when hollow (but not in a replay: there it is what it was)."""
        number = self.layout.serials.number
        return self._norm() if number is None else number(self._norm)

    def dot(self, other: Params) -> float:
        """Inner product, accumulated in float64; NaN when either is hollow (in a replay, what it was)."""
        number = self.layout.serials.number
        return self._dot(other) if number is None else number(self._dot, other)

    def distance(self, other: Params) -> float:
        """‖self − other‖₂, of fp32 differences accumulated in float64; NaN when either is hollow (in a replay, what it
        was). Makes no new parameters."""
        number = self.layout.serials.number
        return self._distance(other) if number is None else number(self._distance, other)

    def _norm(self) -> float:
        if self.flat is None:
            return math.nan
        return length(self.flat)

    def _dot(self, other: Params) -> float:
        if self.flat is None or other.flat is None:
            return math.nan
        return float(torch.dot(self.flat.double(), other.flat.double()))

    def _distance(self, other: Params) -> float:
        if self.flat is None or other.flat is None:
            return math.nan
        return length(self.flat, other.flat)

    def _data(self) -> torch.Tensor:
        if self.flat is None:
            raise ValueError("these parameters are hollow (timing mode): they have a size, but no values")
        return self.flat


def length(flat: torch.Tensor, other: Optional[torch.Tensor] = None) -> float:
    """Return the Euclidean norm of `flat`, or of `flat − other`, accumulated in float64.

    In blocks where that is faster: torch's own sum in float64 over single precision is several times slower.
    """
    if flat.is_cuda or len(flat) <= BLOCK:
        return float(torch.linalg.vector_norm(flat if other is None else flat - other, dtype=torch.float64))
    total = 0.0
    for first in range(0, len(flat), BLOCK):
        block = flat[first : first + BLOCK]
        block = (block if other is None else block - other[first : first + BLOCK]).double()
        total += float(torch.dot(block, block))
    return math.sqrt(total)


def mean(several: Iterable[Params]) -> Params:
    """Return the mean of several parameters, summed in order in the layout's precision; holds one of them at a time.

    Hollow if one of them is. Raises ValueError if there are none, or if they are of different sizes.
    """
    total: Optional[torch.Tensor] = None
    layout: Optional[Layout] = None
    count, hollow = 0, False
    for params in several:
        if layout is not None and params.layout.size != layout.size:
            raise ValueError(f"parameters of different layouts: {layout.size}, {params.size}")
        layout, count = params.layout, count + 1
        if params.flat is None:
            hollow = True
        else:
            total = params.flat.clone() if total is None else total.add_(params.flat)
    if layout is None:
        raise ValueError("the mean of no parameters")
    return Params(layout, None if hollow or total is None else total.div_(count))
