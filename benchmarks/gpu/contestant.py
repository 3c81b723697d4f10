"""One who takes turns: a run or a bare loop, in a process of its own that stops after each round until told to go on.

Told anything through its pipe, it takes a turn, and answers with what that took; once the pipe is closed, it ends.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Optional

import torch

from benchmarks.bare_loop import stepping, trained
from halos.config.config import load_config
from halos.errors import UserError
from halos.hooks import hookimpl
from halos.run.lifecycle import run


@dataclass(frozen=True)
class Spec:
    """Who it is."""

    size: dict[str, int]  # of model, batch and data, as benchmarks.bare_loop has them
    workers: int  # a turn is one round of DiLoCo: so many workers,
    steps: int  # and so many local steps each; of a bare loop, as many tokens
    executor: Optional[str] = None  # of a run; None: a bare loop
    compiled: bool = False
    large: bool = False  # of a bare loop: the batches of all workers are one
    device: str = "cuda"
    precision: str = "bf16"

    @property
    def tokens(self) -> int:
        """In a turn."""
        return self.workers * self.steps * self.size["batch"] * self.size["length"]


class Turns:
    """Says what each turn took, and waits for the next; an observer of a run, whose turn is over with a commit."""

    def __init__(self, spec: Spec, pipe: Connection) -> None:
        self.spec, self.pipe = spec, pipe
        self.began = time.perf_counter()

    @hookimpl(trylast=True)
    def on_commit(self, commit: Any) -> None:
        self.over()

    def over(self) -> None:
        """End of a turn: all of it is computed."""
        gpu = self.spec.device == "cuda"
        if gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.began
        peak = torch.cuda.max_memory_allocated() if gpu else None  # since it began
        self.pipe.send({"seconds": seconds, "peak_bytes": peak})
        try:
            self.pipe.recv()
        except EOFError:
            os._exit(0)  # in the middle of a run of which nothing is wanted
        self.began = time.perf_counter()


def train(spec: Spec, turns: Turns) -> None:
    """A run: DiLoCo with all records."""
    sections = trained(spec.size)
    sections["train"] |= {"precision": spec.precision, "compile": spec.compiled}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            json.dumps(
                {
                    **sections,
                    "cluster": {"regions": [{"workers": [1.0] * spec.workers}]},
                    "steps": {"name": "fixed", "base": spec.steps},
                    "policy": {"name": "diloco"},
                    "executor": {"name": spec.executor, "device": spec.device},
                    "budget": {"local_steps": 10**9},
                    "checkpoint": {"every_minutes": None, "at_end": False},
                    "observers": {"progress": False},
                    "out": folder + "/run",
                }
            )
        )
        loaded, plugins = load_config(str(config))
        plugins.manager.register(turns)
        run(loaded, plugins)


def loop(spec: Spec, turns: Turns) -> None:
    """The bare loop: a step for each of the workers', or one of as many samples as theirs together."""
    size, steps = dict(spec.size), spec.workers * spec.steps
    if spec.large:
        size["batch"], steps = size["batch"] * spec.workers, spec.steps
    steppings = stepping(size, spec.device, spec.precision, spec.compiled)
    next(steppings)
    while True:
        for _ in range(steps):
            next(steppings)
        turns.over()


def main(spec: Spec, pipe: Connection, errors: str) -> None:
    """The whole of its process; what it says, and what it fails with, is in the file `errors`."""
    said = os.open(errors, os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    multiprocessing.set_start_method("fork", force=True)  # Linux's own, which leaves no semaphores behind
    torch.set_num_threads(1)
    if spec.device == "cpu":  # trying it out: all of compiling but machine code, which takes a minute
        torch.compile = partial(torch.compile, backend="aot_eager")
    try:
        (loop if spec.executor is None else train)(spec, Turns(spec, pipe))
    except UserError as error:
        sys.exit(str(error))
