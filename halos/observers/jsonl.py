"""The run folder's record files: every record one line of JSON, and `summary.json` at the end.

What a line holds is the records' own matter (`as_json`). Files hold whole lines only, also after a
full disk or an interrupt: a batch that could not be written completely is taken back.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from halos.errors import UserError
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing, writing
from halos.values.records import Commit, Evaluation, Summary, Transfer, Update

BATCH = 1024  # lines collected before they are written
FLUSH_SECONDS = 1.0  # of wall time, at most this often unless a batch is full

UPDATES, TRANSFERS, COMMITS, EVALUATIONS = "updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl"


class Lines:
    """A file of lines, written in batches.

    In a resumed run, where all lines come again, what is in the file already must be the same lines;
    nothing of it is touched before `go_on`, which cuts off what is behind the lines that came so far. An observer whose
    lines do not come again, since they say what only tensors can, has what `kept` returns in its state.
    """

    def __init__(self, path: Path, resumed: bool = False) -> None:
        self.path = path
        self.length = 0  # bytes of whole lines
        self._pending: list[str] = []
        self._comparing = resumed
        self._held: list[bytes] = []  # what came again beyond the end of the file
        with writing(path):
            if not resumed:
                self._file = path.open("wb", buffering=0)

    def add(self, line: str) -> None:
        pending = self._pending
        pending.append(line)
        if len(pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, all of it or (with a UserError) nothing."""
        if not self._pending:
            return
        batch = ("\n".join(self._pending) + "\n").encode()
        self._pending.clear()
        if self._comparing:
            self._compare(batch)
        else:
            self._write(batch)

    def kept(self) -> int:
        """Return how many bytes are safely on the disk now, with all that was added: what a checkpoint counts on."""
        self.flush()
        with writing(self.path):
            os.fsync(self._file.fileno())
        return self.length

    def go_on(self, length: Optional[int] = None) -> None:
        """All lines have come again up to where a resumed run goes on; or none, and the file had `length` bytes there.

        Raises UserError if it holds fewer, or other lines.
        """
        if length is not None:
            self.length = length
            there = os.path.getsize(self.path) if self.path.exists() else 0
            if there < length:
                raise UserError(f"{self.path} is not what this run wrote: {length - there} bytes of it are missing")
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
            raise UserError(f"{self.path} is not what this run wrote: it was changed, so the run cannot go on")
        self.length += len(whole)
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

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


class Recorder:
    """Writes evaluations and the summary (`records: none`); its heirs write more.

    A resumed run writes what is not yet in the files.
    """

    names: tuple[str, ...] = (EVALUATIONS,)

    def __init__(self) -> None:
        self.files: dict[str, Lines] = {}
        self._flushed = time.monotonic()

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._folder = experiment.folder
        for name in self.names:
            self.files[name] = Lines(self._folder / name, resumed=experiment.resumed_at is not None)

    @hookimpl
    def on_resume(self, time: float) -> None:
        for lines in self.files.values():
            lines.flush()  # compares: nothing is written before all are seen to be what they should be
        for lines in self.files.values():
            lines.go_on()

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self.files[EVALUATIONS].add(evaluation.as_json())
        self.flush_now_and_then()

    @hookimpl(tryfirst=True)  # the summary is there, whatever happens to the others
    def on_finish(self, summary: Summary) -> None:
        problems = []
        for lines in self.files.values():
            try:
                lines.close()
            except UserError as problem:
                problems.append(problem)
        if problems and summary["finished"] is True:
            summary = {**summary, "finished": f"failed: {problems[0]}"}
        try:
            write_summary(self._folder / "summary.json", summary)
        except UserError as problem:
            problems.append(problem)
        if problems:
            raise problems[0]

    def flush_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            for lines in self.files.values():
                lines.flush()


class CommitRecorder(Recorder):
    """Writes commits as well (`records: commits`)."""

    names: tuple[str, ...] = (COMMITS, EVALUATIONS)

    def __init__(self) -> None:
        super().__init__()
        self._add_commit = _unopened

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        super().on_start(experiment)
        self._add_commit = self.files[COMMITS].add

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self._add_commit(commit.as_json())
        self.flush_now_and_then()


class FullRecorder(CommitRecorder):
    """Writes updates and transfers as well (`records: all`)."""

    names: tuple[str, ...] = (UPDATES, TRANSFERS, COMMITS, EVALUATIONS)

    def __init__(self) -> None:
        super().__init__()
        self._add_update = self._add_transfer = _unopened

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        super().on_start(experiment)
        self._add_update = self.files[UPDATES].add
        self._add_transfer = self.files[TRANSFERS].add

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._add_update(update.as_json())

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self._add_transfer(transfer.as_json())


def _unopened(line: str) -> None:
    raise AssertionError(f"a record before on_start: {line}")


def recorder(records: str) -> Recorder:
    """The observer for `observers.records`."""
    return {"all": FullRecorder, "commits": CommitRecorder, "none": Recorder}[records]()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records in `path`, one after another, as dictionaries; nothing if there is no such file."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def write_summary(path: Path, summary: Summary) -> None:
    """Write `summary` to `path` at once or not at all; every worker has one line."""
    lines = [f"{json.dumps(str(key))}: {_indented(plain(value))}" for key, value in summary.items()]
    with replacing(path) as temporary:
        temporary.write_text("{\n  " + ",\n  ".join(lines) + "\n}\n", encoding="utf-8")


def _indented(value: Any) -> str:
    """`value` as JSON over several lines: one for each entry, and each record of a list of them."""
    if isinstance(value, list) and value and all(isinstance(record, dict) for record in value):
        return "[\n    " + ",\n    ".join([json.dumps(record, ensure_ascii=False) for record in value]) + "\n  ]"
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")  # texts hold no line ends: \\n


def plain(value: Any) -> Any:
    """`value` as JSON has it: what is no finite number becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
