"""Reads what Weights & Biases keeps of an offline run: its file, by the published format (blocks of LevelDB's log)."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

BLOCK, HEAD = 32768, 7
WHOLE, LAST = 1, 4  # kinds of pieces; others are followed by more of the same message
OWN = ("_step", "_timestamp", "_runtime")  # in every row: the library's


def finished(path: Path, seconds: float = 20.0) -> list[Any]:
    """All messages, once the last is there: the library's process may write it after the run has ended in ours."""
    until = time.monotonic() + seconds
    while True:
        found = list(records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() < until, f"{path} has no end"
        time.sleep(0.02)


def records(path: Path) -> Iterator[Any]:
    """The messages in a `.wandb` file, in order."""
    content, at, message = path.read_bytes(), HEAD, b""
    assert content.startswith(b":W&B")
    while at < len(content):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        if len(content) < at + HEAD:
            break
        _, length, kind = struct.unpack("<IHB", content[at : at + HEAD])
        if len(content) < at + HEAD + length:
            break  # it is being written
        message += content[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (WHOLE, LAST):
            record = messages.Record()
            record.ParseFromString(message)
            yield record
            message = b""


class Offline:
    """One run, as it would be uploaded. AssertionError if the folder holds none, or several."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        self.rows: list[tuple[int, dict[str, float]]] = []  # number, and values by name
        self.metrics: dict[str, str] = {}  # what they are drawn against
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        for record in finished(self.path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config = {each.key: json.loads(each.value_json) for each in record.run.config.update}
            elif kind == "history":
                values = {"/".join(each.nested_key) or each.key: json.loads(each.value_json)
                          for each in record.history.item}  # fmt: skip
                self.rows.append((values["_step"], {key: each for key, each in values.items() if key not in OWN}))
            elif kind == "metric":
                self.metrics[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            elif kind == "summary":
                for each in record.summary.update:
                    self.summary["/".join(each.nested_key) or each.key] = json.loads(each.value_json)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def curve(self, name: str, axis: str) -> list[tuple[float, float]]:
        """(x, y) of every row that has this value."""
        return [(values[axis], values[name]) for _, values in self.rows if name in values]
