"""An executor whose outcomes are on tape: of an earlier run at first, without training anything, then real ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Optional, cast

from halos.errors import ConfigError, UserError
from halos.plugins.optional import ExecutorMay, call, has
from halos.resume.tape import Tape
from halos.training import Executor, Job, Outcome, Task
from halos.values.params import Params


class Taped:
    """Stands before an executor: replays outcomes, with hollow parameters, or passes jobs on and keeps numbers."""

    def __init__(self, executor: Executor, tape: Tape) -> None:
        self._executor = executor
        self._tape = tape
        self._pending: dict[int, Job] = {}  # by worker: submitted in the replay, not yet asked for
        if not (has(executor, "state") and has(executor, "restore")):
            name = type(executor).__name__
            raise ConfigError("checkpoint", f"executor {name} cannot: it has no methods state and restore")

    def open(self, task: Task) -> Params:
        return self._executor.open(task)

    def submit(self, job: Job) -> None:
        if not self._tape.replaying:
            self._executor.submit(job)
            return
        self._pending.pop(job.worker, None)
        self._pending[job.worker] = job

    def result(self, job: Job) -> Outcome:
        if self._tape.replaying:
            del self._pending[job.worker]
            count = self._tape.take_count()
            losses, chunks = self._tape.take(count), [self._tape.take_count() for _ in range(count)]
            return Outcome(Params(job.start.layout, None), tuple(losses), tuple(chunks), self._tape.take_optional())
        outcome = self._executor.result(job)
        if self._tape.recording:
            self._tape.add(len(outcome.losses), *outcome.losses, *outcome.chunks)
            self._tape.add_optional(outcome.loss)
        return outcome

    def let_go(self) -> None:
        """Nothing is kept from now on: jobs go straight to the executor."""
        self.submit, self.result = self._executor.submit, self._executor.result  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        """What is asked beside the run, never in a replay, is the executor's own matter, where it has that."""
        if name not in ("remember", "recall", "probe", "predictions", "probe_gradient", "second_moments"):
            raise AttributeError(name)
        return getattr(self._executor, name)

    @property
    def step(self) -> Callable[[Params, Params, int], Params]:
        """There is one where the executor has one."""
        real = cast(ExecutorMay, self._executor).step
        if self._tape.replaying:
            return lambda params, gradient, lr_step: Params(params.layout, None)
        return real

    def forget(self, worker: int) -> None:
        if not self._tape.replaying:
            call(self._executor, "forget", worker)

    def evaluate(self, params: Params, name: str) -> Optional[dict[str, float]]:
        if self._tape.replaying:
            return {self._tape.take_text(): self._tape.take(1)[0] for _ in range(self._tape.take_count())} or None
        found = self._executor.evaluate(params, name)
        means = found if isinstance(found, dict) else {} if found is None else {"loss": found}
        self._tape.add(len(means))
        for of, mean in means.items():
            self._tape.add_text(of)
            self._tape.add(mean)
        return means or None

    def shard_sizes(self) -> Optional[list[int]]:
        sizes: Optional[list[int]] = call(self._executor, "shard_sizes")
        return sizes

    def describe(self) -> dict[str, Any]:
        return self._executor.describe()

    def close(self) -> None:
        self._executor.close()

    def state(self) -> dict[str, Any]:
        """The real executor's, for a checkpoint."""
        return cast(ExecutorMay, self._executor).state()

    def go_live(self, state: dict[str, Any]) -> None:
        """The real executor takes over, from `state`; jobs under way are submitted to it. UserError if it cannot."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of a state that is none: said below
                cast(ExecutorMay, self._executor).restore(state)
        except Exception as error:
            raise UserError(
                f"the run cannot be resumed: the executor cannot go on from what it saved: {type(error).__name__}:"
                f" {' '.join(str(error).split())}"
            ) from error
        for job in self._pending.values():
            self._executor.submit(job)
        self._pending.clear()
