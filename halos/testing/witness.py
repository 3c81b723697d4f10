"""Sees all parameters that are made during a run, and which of them were modified afterwards."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from halos.values import params
from halos.values.params import Layout, Params


class Witness:
    """Everything made since `watching` began, as it was then."""

    def __init__(self) -> None:
        self._seen: list[tuple[Params, bytes, str]] = []

    def note(self, made: Params) -> None:
        """These parameters have just been made."""
        if made.flat is not None:
            self._seen.append((made, content(made.flat), maker()))

    def modified(self) -> list[str]:
        """Where the parameters were made that are not what they were; each place once."""
        places = [place for each, before, place in self._seen if each.flat is None or content(each.flat) != before]
        return list(dict.fromkeys(places))


@contextmanager
def watching() -> Iterator[Witness]:
    """A witness of all parameters made inside."""
    witness, original = Witness(), Params.__init__

    def noted(self: Params, layout: Layout, flat: torch.Tensor | None) -> None:
        original(self, layout, flat)
        witness.note(self)

    with mock.patch.object(Params, "__init__", noted):
        yield witness


def content(tensor: torch.Tensor) -> bytes:
    """Its bits."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def maker() -> str:
    """`file:line` of the code that made parameters, whatever arithmetic it used."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, params.__file__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def fingerprint(value: Any) -> Any:
    """Something equal for equal contents, bit for bit: of parameters, tensors, states made of them, plain values."""
    if isinstance(value, Params):
        return ("Params", value.size, None if value.flat is None else (value.flat.dtype, content(value.flat)))
    if isinstance(value, torch.Tensor):
        return ("Tensor", value.dtype, tuple(value.shape), content(value))
    if isinstance(value, Mapping):
        return tuple((key, fingerprint(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(fingerprint(each) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(fingerprint(getattr(value, each.name)) for each in dataclasses.fields(value))
    return fingerprint(vars(value)) if hasattr(value, "__dict__") else repr(value)
