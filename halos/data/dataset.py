"""A PyTorch dataset, or any sequence of samples, as a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from halos.data import arrays
from halos.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DatasetCorpus:
    """The corpus whose samples are the items of a PyTorch dataset (or any sequence), each read when it is needed.

    An item is an array, a tensor or a number, or a tuple of these (image and label), the same whenever it is asked for
    and of one shape. Without a `hash` every item is read once, for that. Raises UserError if items differ in shape or
    hold no numbers, or for a dataset that can only be iterated over.
    """

    def __init__(
        self,
        dataset: Any,
        vocab_size: Optional[int] = None,
        hash: str = "",
        sources: Optional[Sequence[int] | NDArray[Any]] = None,
    ) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            name = type(dataset).__name__
            raise UserError(f"{name} has no length, or no samples by number: it can only be iterated over")
        self.dataset = dataset
        self.vocab_size = vocab_size  # None: samples are no tokens
        self.sources = sources
        self.hash = hash or arrays.digest_of_parts(self.read(slice(i, i + 1)) for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, rows: slice | NDArray[np.int64]) -> arrays.Parts:
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        if not len(numbers):
            one = arrays.stacked([self.dataset[0]])
            return tuple(part[:0] for part in one) if isinstance(one, tuple) else one[:0]
        return arrays.stacked([self.dataset[number] for number in numbers])
