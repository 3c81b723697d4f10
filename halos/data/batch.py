"""Samples that are more than one tensor: images and labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch


class Batch:
    """Some samples, in several tensors [samples, …]: `images, labels = batch`; its length is that of each of them."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def to(self, device: torch.device) -> Batch:
        """Return the same on another device."""
        return Batch(*(tensor.to(device) for tensor in self.tensors))


def joined(pieces: list[torch.Tensor | Batch]) -> torch.Tensor | Batch:
    """Return all samples of `pieces`, which are of one kind, in order."""
    if isinstance(pieces[0], Batch):
        return Batch(*map(torch.cat, zip(*pieces)))
    return torch.cat(pieces)  # type: ignore[arg-type]  # none is a Batch, as the first is not


def moved(batch: torch.Tensor | Batch, device: torch.device) -> torch.Tensor | Batch:
    """Return the same on another device.

    To a GPU by way of pinned memory: a plain copy would wait for all that the GPU has been given to do.
    """
    if device.type != "cuda":
        return batch.to(device)
    if isinstance(batch, Batch):
        return Batch(*(_pinned(tensor).to(device, non_blocking=True) for tensor in batch))
    return _pinned(batch).to(device, non_blocking=True)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor
