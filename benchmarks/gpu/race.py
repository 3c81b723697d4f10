"""Several who take turns on one device, so that a slow moment hits all of them; and by when they must have done so."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any, Optional

from benchmarks.gpu import contestant
from benchmarks.gpu.contestant import Spec

ROOT = Path(__file__).parents[2]
LEAST, MOST = 3, 9  # turns of each; fewer are no measurement


class Unmeasured(Exception):
    """Why there are no figures."""


# Whose processes are forked has imported PyTorch, once for all of them, and has used no device yet.
ONCE = multiprocessing.get_context("forkserver")
ONCE.set_forkserver_preload(["benchmarks.gpu.contestant", "torch._dynamo"])


class Process:
    """A contestant's process, seen from here."""

    def __init__(self, name: str, spec: Spec, stack: ExitStack) -> None:
        self.name = name
        self.errors = stack.enter_context(tempfile.NamedTemporaryFile("r"))  # noqa: SIM115 (it is)
        self.pipe, others = ONCE.Pipe()
        self.process = ONCE.Process(target=contestant.main, args=(spec, others, self.errors.name), daemon=True)
        self.process.start()
        others.close()
        stack.callback(self.close)

    def turn(self, deadline: float) -> dict[str, Any]:
        """Let it take a turn; return its answer."""
        with suppress(BrokenPipeError):  # then it has said why
            self.pipe.send("go")
        return self.answer(deadline)

    def answer(self, deadline: float) -> dict[str, Any]:
        """Return what it says. Raises Unmeasured if it says nothing before `deadline`, or has ended."""
        if not self.pipe.poll(max(0.0, deadline - time.monotonic())):
            raise Unmeasured(f"{self.name} was not done in time")
        try:
            answer: dict[str, Any] = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()  # it may still be writing
            said = [line for line in self.errors.read().splitlines() if line.strip()]
            raise Unmeasured(f"{self.name}: {said[-1] if said else 'ended without a word'}") from None
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def race(contestants: Mapping[str, Spec], deadline: float, most: int = MOST) -> dict[str, Any]:
    """Return turns' tokens per second and peak memory, by contestant. Raises Unmeasured if `deadline` is too early.

    A turn each to compile what is compiled and one more to warm up; then all of them one after another, in an
    order that turns round.
    """
    with ExitStack() as stack:
        processes = {name: Process(name, spec, stack) for name, spec in contestants.items()}
        for process in processes.values():
            process.answer(deadline)
        slowest, peaks = 0.0, {}
        for name, process in processes.items():
            answer = process.turn(deadline)
            slowest += answer["seconds"]
            peaks[name] = answer["peak_bytes"]
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(most):
            if turn >= LEAST and time.monotonic() + 1.5 * slowest > deadline:
                break
            for name in list(contestants) if turn % 2 else list(contestants)[::-1]:
                rates[name].append(contestants[name].tokens / processes[name].turn(deadline)["seconds"])
    return {"rates": rates, "peak_bytes": peaks}


def spread(several: list[float]) -> dict[str, Optional[float]]:
    return {"median": median(several), "min": min(several), "max": max(several)}


def ratios(rates: Mapping[str, list[float]], over: str, under: str) -> list[float]:
    """One's rates over another's, turn by turn."""
    return [one / other for one, other in zip(rates[over], rates[under])]
