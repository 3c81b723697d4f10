"""Lines of JSON: what the run folder has of the records whose fields are not what a line holds; how it is written.

Numbers are written as the shortest text that reads back as the same; None and what is no finite number become null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from msgspec import Raw, Struct
from msgspec.json import Encoder, format

# Nothing here holds anything that could hold it in turn (`gc`): a timing run makes a million of them.


class UpdateLine(Struct, frozen=True, gc=False):
    """A line of `updates.jsonl`."""

    id: int
    time: float
    worker: int
    region: int
    steps: int
    start_time: float
    start_version: int
    global_version: int
    delta_norm: float
    first_sample: int
    end_sample: int
    lr_step: int
    loss: Optional[float]
    losses: tuple[float, ...]
    server: Optional[int]


class ShareLine(Struct, frozen=True, gc=False):
    """What a line of `commits.jsonl` has of one contribution; lists have an entry for each of its updates."""

    updates: list[int]
    workers: list[int]
    factors: list[float]
    steps: int
    from_version: int
    hop_staleness: int
    hop_drift: float
    end_to_end: Sequence[Any]


class CommitLine(Struct, frozen=True, gc=False):
    """A line of `commits.jsonl`."""

    time: float
    version: int
    server: str
    kind: str
    local_steps: int
    norm: float
    step_norm: float
    contributions: list[ShareLine]


def _plain(value: Any) -> Any:
    """A number of NumPy's or torch's, or an heir of Python's own types, as one of these. TypeError for others."""
    for kind in (str, float, int):
        if isinstance(value, kind):
            return kind(value)
    try:
        return value.item()
    except AttributeError:
        raise TypeError(f"a record holds {value!r}, which is neither number nor text") from None


_ENCODER = Encoder(enc_hook=_plain)


def encoded(lines: Sequence[Any]) -> bytes:
    """Return one line for each, ended by a line feed."""
    return _ENCODER.encode_lines(lines)


def written(line: Any) -> Raw:
    """Return one line as it is to be written, for `encoded`: what it was made of may be gone by then.

    A line that holds lists is better not kept: of many, Python's garbage collector looks through everything there is.
    """
    return Raw(_ENCODER.encode(line))


def text_of(line: Any) -> str:
    """Return one line, without a line feed."""
    return _ENCODER.encode(line).decode()


def spaced(value: Any, indent: int = 0) -> str:
    """Return what people read as well: with blanks, in one line; or with an `indent`, an entry a line."""
    return format(_ENCODER.encode(value), indent=indent).decode()
