"""One who takes turns: a run or a bare loop, in a process of its own that stops after each round until told to go on.

Told a line on its standard input, it takes a turn, and answers with a line of JSON; without one, it ends.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional, TextIO

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

    def line(self) -> str:
        return json.dumps(asdict(self))


class Turns:
    """Says what each turn took, and waits for the next; an observer of a run, whose turn is over with a commit."""

    def __init__(self, spec: Spec, answers: TextIO) -> None:
        self.spec, self.answers = spec, answers
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
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), file=self.answers, flush=True)
        if not sys.stdin.readline():
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


def main(line: str) -> None:
    spec = Spec(**json.loads(line))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    torch.set_num_threads(1)
    if spec.device == "cpu":  # trying it out: all of compiling but machine code, which takes a minute
        torch.compile = partial(torch.compile, backend="aot_eager")
    try:
        (loop if spec.executor is None else train)(spec, Turns(spec, answers))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])
