"""`drift.jsonl`: whole lines, which a resumed run cuts where its checkpoint was, and goes on with."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from halos import UserError

BATCH = 256  # lines collected before they are written
SECONDS = 1.0  # of wall time, after which they are written in any case, with the next one


class Lines:
    """A file of lines, written in batches and when a checkpoint is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[str] = []
        self._length = 0  # bytes written
        self._crc = 0  # of these
        self._begun = False
        self._flushed = time.monotonic()

    def add(self, line: dict[str, Any]) -> None:
        """One more; what is no finite number becomes null."""
        self._pending.append(json.dumps(plain(line)))
        if len(self._pending) >= BATCH or time.monotonic() - self._flushed >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has come so far, all of it or (with a UserError) nothing."""
        batch = "".join(f"{line}\n" for line in self._pending).encode()
        with self._writing(), self._path.open("ab" if self._begun else "wb") as file:
            try:
                file.write(batch)
                file.flush()
            except BaseException:
                os.truncate(file.fileno(), self._length)
                raise
        self._begun, self._flushed = True, time.monotonic()
        self._pending.clear()
        self._length += len(batch)
        self._crc = crc32(batch, self._crc)

    def state(self) -> dict[str, int]:
        """Return what a checkpoint must hold, when all that came so far is on the disk."""
        self.flush()
        return {"length": self._length, "crc": self._crc}

    def restore(self, state: dict[str, int]) -> None:
        """Go on behind what was written by then. Raises UserError if that is not what the file begins with."""
        length, there = state["length"], b""
        with self._writing():
            if self._path.exists():
                with self._path.open("rb") as file:
                    there = file.read(length)
        if len(there) < length or crc32(there) != state["crc"]:
            raise UserError(f"{self._path} is not what this run wrote: it was changed, so the run cannot go on")
        self._length, self._crc = length, state["crc"]
        self._begun = length > 0

    def go_on(self) -> None:
        """Cut off what is behind: the run goes on for real."""
        with self._writing():
            if self._begun:
                os.truncate(self._path, self._length)
            else:
                self.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = error.strerror or error
            raise UserError(f"{self._path} cannot be written: {said}; what was written before is intact") from error


def plain(value: Any) -> Any:
    """Return the same as JSON has it: None for what is no finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value
