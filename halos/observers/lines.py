"""A file of lines: whole ones only, also after a full disk, an interrupt or a kill, and exact in a resumed run.

A batch that could not be written completely is taken back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from halos.errors import UserError
from halos.observers.files import writing

BATCH = 1024  # lines collected before they are written


def joined(lines: list[str]) -> bytes:
    """Return texts as lines."""
    return ("\n".join(lines) + "\n").encode()


class Lines:
    """A file of lines, written in batches.

    In a resumed run, where all lines come again, what is in the file already must be the same lines;
    nothing of it is touched before `go_on`, which cuts off what is behind the lines that came so far. An observer whose
    lines do not come again, since they say what only tensors can, has what `state` returns in its own, and gives it to
    `restore`.
    """

    def __init__(self, path: Path, resumed: bool = False, encode: Callable[[list[Any]], bytes] = joined) -> None:
        """Open the file. `encode` makes a batch's bytes of what was added: by default of texts, a line each."""
        self.path = path
        self._encode = encode
        self.length = 0  # bytes of whole lines
        self._crc = 0  # of these
        self._pending: list[Any] = []
        self._comparing = resumed
        self._held: list[bytes] = []  # what came again beyond the end of the file
        with writing(path):
            if not resumed:
                self._file = path.open("wb", buffering=0)

    def add(self, line: Any) -> None:
        """Add a line: a text without a line feed; or what `encode` was given for."""
        pending = self._pending
        pending.append(line)
        if len(pending) >= BATCH:
            self.flush()

    def record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add a line of JSON; return what it says: what is no finite number becomes null."""
        written: dict[str, Any] = plain(record)
        self.add(json.dumps(written))
        return written

    def flush(self) -> None:
        """Write what is pending, all of it or (with a UserError) nothing."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []  # what cannot be written is not tried again
        batch = self._encode(pending)
        if self._comparing:
            self._compare(batch)
        else:
            self._write(batch)

    def state(self) -> dict[str, int]:
        """Return what a checkpoint counts on, with all that was added so far safely on the disk."""
        self.flush()
        with writing(self.path):
            os.fsync(self._file.fileno())
        return {"length": self.length, "crc": self._crc}

    def restore(self, state: dict[str, int]) -> None:
        """Have a resumed run go on behind what `state` counted. Raises UserError if the file does not begin with it."""
        there = b""
        if self.path.exists():
            with writing(self.path), self.path.open("rb") as file:
                there = file.read(state["length"])
        if missing := state["length"] - len(there):
            raise UserError(f"{self.path} is not what this run wrote: {missing} bytes of it are missing")
        if crc32(there) != state["crc"]:
            raise self._changed()
        self.length, self._crc = state["length"], state["crc"]

    def go_on(self) -> None:
        """Go on where a resumed run does: all lines have come again up to there, or it was said by `restore`.

        Raises UserError if the file holds other lines.
        """
        self.flush()
        if self._comparing:
            self._comparing = False
            with writing(self.path):
                self._file = self.path.open("ab", buffering=0)
                os.truncate(self._file.fileno(), self.length)
            held, self._held = b"".join(self._held), []
            self._write(held)

    def _compare(self, batch: bytes) -> None:
        there = b""
        if not self._held and self.path.exists():
            with writing(self.path), self.path.open("rb") as file:
                file.seek(self.length)
                there = file.read(len(batch))
        whole = there[: there.rfind(b"\n") + 1]  # a process that was killed may have left half a line
        if not batch.startswith(there):
            raise self._changed()
        self.length += len(whole)
        self._crc = crc32(whole, self._crc)
        if len(whole) < len(batch):
            self._held.append(batch[len(whole) :])

    def _write(self, batch: bytes) -> None:
        rest = memoryview(batch)
        with writing(self.path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except BaseException:  # an interrupt as well: half a line helps nobody
                os.truncate(self._file.fileno(), self.length)
                raise
        self.length += len(batch)
        self._crc = crc32(batch, self._crc)

    def _changed(self) -> UserError:
        return UserError(f"{self.path} is not what this run wrote: it was changed, so the run cannot go on")

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def plain(value: Any) -> Any:
    """`value` as JSON has it: what is no finite number becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
