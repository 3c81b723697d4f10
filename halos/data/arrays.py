"""Whatever holds numbers as NumPy arrays, and a hash of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from halos.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parts: TypeAlias = "NDArray[Any] | tuple[NDArray[Any], ...]"

HASHED_WHOLE = 2**30  # bytes; of what is larger, the size and both ends are hashed: a terabyte takes an hour to read
HASHED_END = 2**24
CHUNK = 2**22  # bytes hashed at a time
KINDS = "biuf"  # truth values, integers, fractions


def numbers(value: Any) -> NDArray[Any]:
    """Return an array, a tensor (on any device), a number or lists of these as an array, copied only if need be.

    Raises UserError for what holds no numbers.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()  # which NumPy has not
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(f"samples are no array of numbers: {error}") from None
    if array.dtype.kind not in KINDS:
        what = type(value).__name__ if array.dtype == object else array.dtype
        raise UserError(f"samples are {what}, not integers, floating-point numbers or truth values")
    return array


def check(parts: Sequence[NDArray[Any]]) -> None:
    """Raise UserError unless all parts hold equally many samples."""
    if not parts or any(part.ndim < 1 for part in parts):
        raise UserError("samples are no array with a dimension for them")
    counts = [len(part) for part in parts]
    if len(set(counts)) > 1:
        raise UserError(f"the parts of samples hold {', '.join(map(str, counts))} of them, not equally many")


def stacked(items: Sequence[Any]) -> Parts:
    """Return single samples as one array [samples, …], tuples as a tuple. Raises UserError if they differ in shape."""
    if isinstance(items[0], tuple):
        if any(not isinstance(item, tuple) or len(item) != len(items[0]) for item in items):
            raise UserError(f"not every sample is a tuple of {len(items[0])}, as the first one is")
        return tuple(_stack([numbers(part) for part in column]) for column in zip(*items))
    return _stack([numbers(item) for item in items])


def digest(parts: Parts) -> str:
    """SHA-256 of what arrays hold and how they are shaped; of one over 1 GiB, of that and its first and last 16 MiB."""
    made = hashlib.sha256()
    for part in parts if isinstance(parts, tuple) else (parts,):
        made.update(f"{part.dtype.str} {part.shape}\n".encode())
        width = max(1, part.nbytes // max(1, len(part)))  # bytes per sample
        rows, end = max(1, CHUNK // width), max(1, HASHED_END // width)
        spans = [range(len(part))]
        if part.nbytes > HASHED_WHOLE:
            spans = [range(min(end, len(part))), range(max(0, len(part) - end), len(part))]
        for span in spans:
            for first in range(span.start, span.stop, rows):
                made.update(np.ascontiguousarray(part[first : min(first + rows, span.stop)]).data)
    return made.hexdigest()


def digest_of_parts(samples: Iterable[Parts]) -> str:
    """The same of samples that come a few at a time."""
    made = hashlib.sha256()
    for parts in samples:
        made.update(digest(parts).encode())
    return made.hexdigest()


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise UserError(f"samples have shapes {' and '.join(str(list(each)) for each in sorted(shapes)[:2])}, not one")
    return np.stack(arrays)
