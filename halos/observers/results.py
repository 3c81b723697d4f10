"""`results.pt`: a run's histories under upstream's keys, for scripts that read upstream's results.

A dictionary of NumPy arrays; `torch.load(path, weights_only=False)` reads it, as upstream's own
scripts do. (Plain tensors would load under torch's default as well, but those scripts expect NumPy.)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from halos.hooks import hookimpl
from halos.observers.experiment import Experiment
from halos.observers.files import replacing
from halos.values.records import GLOBAL, Commit, Evaluation, Summary


class Results:
    """Collects what was committed to the global model, and writes it at the end.

    One entry per chunk of local steps: `num_steps_history` (so many steps so far),
    `loss_history`. One per commit: `time_history` (ms), `loss_over_time_history` (the mean of its
    chunks). One per evaluation of the global model on `validation`: `val_steps_history`,
    `val_time_history` (ms), `val_loss_history`; not that of the initial model, which upstream
    lacks (it lacks the one at the end of the run, too, unless an interval ends there).
    And for each loss its exponential, `perplexity_…`.
    """

    def __init__(self) -> None:
        self._chunks, self._losses = array("q"), array("d")
        self._times, self._mean_losses = array("d"), array("d")
        self._val_steps, self._val_times, self._val_losses = array("q"), array("d"), array("d")

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._path = experiment.folder / "results.pt"

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        if commit.server == GLOBAL and commit.kind == "update":
            updates = [update for share in commit.shares for update in share.updates]
            self._commit(commit.time, [(update.chunks, update.losses) for update in updates])

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        if evaluation.set == "validation" and evaluation.of == GLOBAL:
            self._evaluation(evaluation.time, evaluation.local_steps, evaluation.loss)

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        with replacing(self._path) as temporary:
            try:
                torch.save(self.histories(), temporary)
            except RuntimeError as error:  # how torch reports a disk that is full
                raise OSError(str(error).split("\n")[0]) from error

    def histories(self) -> dict[str, Any]:
        """Return the content of the file, with the original simulator's keys; times in milliseconds."""
        losses, means, val = (np.array(history) for history in (self._losses, self._mean_losses, self._val_losses))
        with np.errstate(over="ignore"):
            return {
                "num_steps_history": np.cumsum(np.array(self._chunks, dtype=np.int64)),
                "loss_history": losses,
                "perplexity_history": np.exp(losses),
                "time_history": np.array(self._times) * 1e3,
                "loss_over_time_history": means,
                "perplexity_over_time_history": np.exp(means),
                "val_steps_history": np.array(self._val_steps, dtype=np.int64),
                "val_time_history": np.array(self._val_times) * 1e3,
                "val_loss_history": val,
                "val_perplexity_history": np.exp(val),
            }

    def _commit(self, time: float, updates: Iterable[tuple[Sequence[int], Sequence[float]]]) -> None:
        first = len(self._losses)
        for chunks, losses in updates:
            self._chunks.extend(chunks)
            self._losses.extend(losses)
        mean = float(np.mean(self._losses[first:])) if len(self._losses) > first else np.nan
        self._times.append(time)
        self._mean_losses.append(mean)

    def _evaluation(self, time: float, local_steps: int, loss: float) -> None:
        if local_steps > 0:
            self._val_steps.append(local_steps)
            self._val_times.append(time)
            self._val_losses.append(loss)
