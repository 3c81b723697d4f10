"""Witnesses of a run: which parameters were modified after they were made, and how two runs differ."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Optional
from unittest import mock

import torch

from halos.testing.recording import Recording
from halos.values import params
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, Share, Update


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
        places = [
            place for params, before, place in self._seen if params.flat is None or content(params.flat) != before
        ]
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
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


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
        return tuple((key, fingerprint(inner)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(fingerprint(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(fingerprint(getattr(value, field.name)) for field in dataclasses.fields(value))
    return fingerprint(vars(value)) if hasattr(value, "__dict__") else repr(value)


def everything(recording: Recording) -> list[Any]:
    """Every record in order, and the bits of every model that was trained or committed."""
    found: list[Any] = []
    for record in recording.heard:
        found.append((type(record).__name__, record.as_json()))
        if isinstance(record, Update):
            found.append(("its parameters", fingerprint([field for field in record if isinstance(field, Params)])))
        elif isinstance(record, Commit):
            found.append(("its parameters", fingerprint(record.params)))
    return found


def timeline(recording: Recording) -> list[Any]:
    """Every record in order, without what only training can know: losses, drift, evaluations."""
    found: list[Any] = []
    for record in recording.heard:
        if isinstance(record, Update):
            found.append(record._replace(losses=(), loss=None, delta_norm=math.nan).as_json())
        elif isinstance(record, Commit):
            shares = [untrained(share).as_json() for share in record.shares]
            found.append((record._replace(shares=(), norm=math.nan, step_norm=math.nan).as_json(), shares))
        elif not isinstance(record, Evaluation):
            found.append(record.as_json())
    return found


def untrained(share: Share) -> Share:
    """Return a share without what only training can know."""
    ways = tuple(way._replace(drift=math.nan) for way in share.end_to_end)
    return share._replace(hop_drift=math.nan, end_to_end=ways)


def first_difference(one: Sequence[Any], other: Sequence[Any]) -> Optional[str]:
    """Where two lists part; None if nowhere."""
    for index, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return f"record {index} is {a} and {b}"
    if len(one) != len(other):
        return f"there are {len(one)} and {len(other)} records"
    return None
