"""Checkpoints: files that hold what a run cannot work out again from its configuration.

A file is written under a temporary name, flushed, and renamed to a name that holds its own digest; so
what has such a name is complete, and what is damaged is found out before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Optional, cast

import torch

from halos.errors import UserError

FORMAT = 4
MOST_NESTED = 100  # lists and dictionaries within each other; no configuration is that
NAME = re.compile(r"events-(\d+)-([0-9a-f]{32})\.pt")


@dataclass
class Checkpoint:
    """A moment of a run, when `events` timed events had happened.

    `timeline` are facts that a replay up to there must arrive at, `numbers` what came out of tensors on
    the way, `params` the flat tensors of all parameters then alive, by serial number.
    """

    config: dict[str, Any]  # resolved
    versions: dict[str, str]
    data: dict[str, Any]  # what the executor says of its data
    events: int
    time: float  # virtual seconds
    timeline: dict[str, int]
    numbers: torch.Tensor  # float64
    params: dict[int, torch.Tensor]
    executor: dict[str, Any]
    observers: dict[str, Any]  # by name, what they go on from
    wall_seconds: float

    @property
    def sound(self) -> bool:
        """Whether all fields are of the types they should be: a file may have held anything."""
        dicts = (self.config, self.versions, self.data, self.timeline, self.params, self.executor, self.observers)
        return (
            all(isinstance(part, dict) for part in dicts)
            and all(_plain(part) for part in (self.config, self.versions, self.data))
            and "halos" in self.versions
            and all(isinstance(text, str) for item in self.versions.items() for text in item)
            and all(type(number) is int for number in (self.events, *self.timeline.values(), *self.params))
            and all(isinstance(name, str) for name in self.timeline)
            and {"committed", "moments"} <= set(self.timeline)
            and all(isinstance(time, float) and math.isfinite(time) for time in (self.time, self.wall_seconds))
            and all(_vector(tensor) for tensor in (self.numbers, *self.params.values()))
            and self.numbers.dtype == torch.float64
        )

    def save(self, folder: Path, keep: int) -> Path:
        """Write into `folder`, and leave only the newest `keep` there. Raises UserError if it cannot be written."""
        content = {part.name: getattr(self, part.name) for part in fields(self)}
        temporary = folder / f".part-{os.getpid()}"
        hashing: Optional[Hashing] = None
        try:
            folder.mkdir(exist_ok=True)
            for left in folder.glob(".part-*"):  # by a process that was killed: nobody else writes here now
                left.unlink()
            with temporary.open("wb") as file:
                hashing = Hashing(file)
                torch.save({"format": FORMAT, **content}, cast(BinaryIO, hashing))
                file.flush()
                os.fsync(file.fileno())
            path = folder / f"events-{self.events:012d}-{hashing.digest}.pt"
            os.replace(temporary, path)
            _sync(folder)
            others = [(events, other) for events, other in _named(folder) if other != path]
            later = [other for events, other in others if events >= self.events]  # damaged, or replaced by this one
            earlier = [other for events, other in others if events < self.events]
            for unwanted in (*later, *earlier[keep - 1 :]):
                unwanted.unlink()
        except (OSError, RuntimeError) as error:
            reason = error if hashing is None or hashing.problem is None else hashing.problem
            why = getattr(reason, "strerror", None) or next(iter(str(reason).splitlines()), type(reason).__name__)
            raise UserError(f"no checkpoint could be written to {folder}: {why}; earlier ones are intact") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path


class Hashing:
    """A file that can only be written to; `digest` is that of all that was."""

    def __init__(self, file: BinaryIO) -> None:
        self.problem: Optional[OSError] = None  # why something could not be: torch says that less clearly
        self._file = file
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> int:
        self._hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.problem = self.problem or error
            raise

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`; UserError says what is wrong with the file."""
    named = NAME.fullmatch(path.name)
    if named is None:
        raise UserError(f"{path.name} is no checkpoint: its name is not events-NUMBER-DIGEST.pt")
    try:
        if not path.is_file():  # a pipe, say: to open it might take for ever
            raise UserError(f"{path.name} is no file")
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != named[2]:
            raise UserError(f"{path.name} is damaged: its content has another digest than its name says")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of what others wrote
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except UserError:
        raise
    except Exception as error:  # whatever unpickling foreign bytes may raise
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path.name} is no checkpoint: {said[:120]}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path.name} is no checkpoint of halos")
    written = content.pop("format")
    if type(written) is not int or written != FORMAT or set(content) != {part.name for part in fields(Checkpoint)}:
        raise UserError(f"{path.name} was written by another version of halos")
    checkpoint = Checkpoint(**content)
    if not checkpoint.sound:
        raise UserError(f"{path.name} is no checkpoint of halos: its parts are not what they should be")
    return checkpoint


def newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest intact checkpoint in `folder`, and what is wrong with newer ones.

    Raises UserError if there is none.
    """
    problems: list[str] = []
    for _, path in _named(folder):
        try:
            return load_checkpoint(path), problems
        except UserError as problem:
            problems.append(str(problem))
    if not problems:
        raise UserError(
            f"{folder} holds no checkpoint: none was asked for or possible, or the run was killed before its first"
        )
    raise UserError(f"{folder} holds no intact checkpoint: {'; '.join(problems)}")


def _named(folder: Path) -> list[tuple[int, Path]]:
    """Return (events, path) of all files named as checkpoints are, newest first."""
    return sorted(_numbered(folder), reverse=True)


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    try:
        for path in folder.iterdir():
            named = NAME.fullmatch(path.name)
            if named:
                yield int(named[1]), path
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None


def _plain(value: Any) -> bool:
    """Whether `value` holds only numbers, texts, lists and dictionaries, none of these twice (or within itself)."""
    pending, seen = [(value, 0)], set()
    while pending:
        item, depth = pending.pop()
        if isinstance(item, (list, tuple, dict)):
            if id(item) in seen or depth == MOST_NESTED:
                return False
            seen.add(id(item))
            inside = [*item, *item.values()] if isinstance(item, dict) else item
            pending += [(one, depth + 1) for one in inside]
        elif item is not None and not isinstance(item, (bool, int, float, str)):
            return False
    return True


def _vector(value: Any) -> bool:
    """Whether `value` is a plain, contiguous vector of floating-point numbers."""
    return (
        type(value) is torch.Tensor
        and value.layout == torch.strided
        and not (value.is_meta or value.is_nested or value.requires_grad)
        and value.dim() == 1
        and value.is_contiguous()
        and value.is_floating_point()
    )


def _sync(folder: Path) -> None:
    """Make a renaming survive a loss of power, where a folder can be opened for that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
