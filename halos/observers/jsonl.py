"""The run folder's record files: every record one line of JSON, and `summary.json` at the end.

What a line holds is the records' own matter (`as_line`), and how files stay whole that of lines.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from halos.errors import UserError
from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing
from halos.observers.lines import Lines, plain
from halos.values.lines import encoded, spaced, written
from halos.values.records import Commit, Evaluation, Summary, Transfer, Update

FLUSH_SECONDS = 1.0  # of wall time, at most this often unless a batch is full

UPDATES, TRANSFERS, COMMITS, EVALUATIONS = "updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl"


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
            self.files[name] = Lines(self._folder / name, experiment.resumed_at is not None, encoded)

    @hookimpl
    def on_resume(self, time: float) -> None:
        for lines in self.files.values():
            lines.flush()  # compares: nothing is written before all are seen to be what they should be
        for lines in self.files.values():
            lines.go_on()

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self.files[EVALUATIONS].add(written(evaluation.as_line()))
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
        self._add_commit(written(commit.as_line()))
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
        self._add_update(update.as_line())

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self._add_transfer(transfer)  # its own line


def _unopened(line: Any) -> None:
    raise AssertionError(f"a record before on_start: {line}")


def recorder(records: str) -> Recorder:
    """The observer for `observers.records`."""
    return {"all": FullRecorder, "commits": CommitRecorder, "none": Recorder}[records]()


def write_summary(path: Path, summary: Summary) -> None:
    """Write `summary` to `path` at once or not at all; every worker has one line."""
    lines = [f"{spaced(str(key))}: {_indented(plain(value))}" for key, value in summary.items()]
    with replacing(path) as temporary:
        temporary.write_text("{\n  " + ",\n  ".join(lines) + "\n}\n", encoding="utf-8")


def _indented(value: Any) -> str:
    """`value` as JSON over several lines: one for each entry, and each record of a list of them."""
    if isinstance(value, list) and value and all(isinstance(record, dict) for record in value):
        return "[\n    " + ",\n    ".join(map(spaced, value)) + "\n  ]"
    return spaced(value, 2).replace("\n", "\n  ")  # texts hold no line ends: \\n
