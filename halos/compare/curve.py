"""Curves: the loss of one run's global model as it was evaluated, by what had been spent until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from halos.values.rounding import latest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from halos.reading.run import RunRecords

STRAIGHT = ("tokens", "steps")  # the loss lies on the straight line between evaluations
HELD = ("seconds", "bytes")  # one has the model that was evaluated last


@dataclass(frozen=True, eq=False)
class Curve:
    """Evaluations, in order of time: what the model had cost by then [evaluations], and its loss [evaluations]."""

    spent: dict[str, NDArray[np.float64]]  # by name: `tokens`, `steps`, `seconds`, `bytes`
    loss: NDArray[np.float64]
    committed: Optional[NDArray[np.float64]] = None  # local steps that the model held by then [evaluations]

    @staticmethod
    def of(run: RunRecords) -> Curve:
        """The run's validation losses; those that are no numbers, as of a model that diverged, are left out.

        Tokens and steps are all trained ones, whether committed or not; bytes those of transfers that had arrived.
        """
        rows = run.curve()
        rows = rows.where(np.isfinite(rows["loss"].astype(np.float64)))
        names = {"tokens": "tokens", "steps": "trained_steps", "seconds": "time"}
        spent = {name: rows[column].astype(np.float64) for name, column in names.items()}
        loss, committed = (rows[name].astype(np.float64) for name in ("loss", "local_steps"))
        return Curve({**spent, "bytes": _sent(run, spent["seconds"])}, loss, committed)

    def __len__(self) -> int:
        return len(self.loss)

    def reach(self, of: str) -> float:
        """How much of `of` had been spent at the last evaluation; NaN if that is not known."""
        return float(self.spent[of][-1]) if len(self) else np.nan

    def at(self, of: str, amount: float) -> float:
        """The loss after so much of `of`; NaN if it is not known.

        Of tokens and steps, on the straight line between two evaluations (of several after the same number the last
        counts), and unknown beyond the last. Of seconds and bytes, that of the last evaluation until then.
        """
        if not len(self) or np.isnan(self.spent[of][-1]):
            return np.nan
        spent = self.spent[of]
        if of in HELD:
            row = int(np.searchsorted(spent, amount, side="right")) - 1
            return float(self.loss[row]) if row >= 0 else np.nan
        if not spent[0] <= amount <= spent[-1]:
            return np.nan
        last = np.append(spent[1:] > spent[:-1], True)
        return float(np.interp(amount, spent[last], self.loss[last]))

    def trained(self, of: str, amount: float) -> bool:
        """Whether the loss after so much of `of` is that of a model that something had been committed to.

        Before, and on the straight line that leads there, it says little of a method: all begin alike.
        """
        row = int(np.searchsorted(self.spent[of], amount, side="right")) - 1
        return self.committed is None or (row >= 0 and bool(self.committed[row] > 0))

    def when(self, of: str, amount: float) -> float:
        """The simulated seconds of the first evaluation after at least so much of `of`; NaN if there is none."""
        rows = np.flatnonzero(self.spent[of] >= amount)
        return float(self.spent["seconds"][rows[0]]) if rows.size else np.nan

    def first(self, target: float) -> Optional[int]:
        """The row of the first evaluation at or below `target`; None if there is none."""
        rows = np.flatnonzero(self.loss <= target)
        return int(rows[0]) if rows.size else None


def _sent(run: RunRecords, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bytes that had arrived by each moment [moments]; NaN where transfers are not recorded."""
    observers = run.config.get("observers")
    if not isinstance(observers, dict) or observers.get("records") != "all":
        return np.full(len(seconds), np.nan)
    transfers = run.transfers
    order = np.argsort(transfers["time"], kind="stable")  # a pull is reported together with its push
    total = np.concatenate([[0.0], np.cumsum(transfers["bytes"][order].astype(np.float64))])
    arrived = np.searchsorted(transfers["time"][order], latest(1.0) * seconds, side="right")
    found: NDArray[np.float64] = total[arrived]
    return found
