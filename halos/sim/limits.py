"""Limits: whether a run goes on: its budget, the target it may reach when evaluated, and when it is given up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from halos.data import DataSource
from halos.errors import ConfigError, positive, require
from halos.sim.clock import Deadlock
from halos.sim.ledger import Ledger

logger = logging.getLogger(__name__)

GENEROUS = 4  # times the budget: what may be trained before it is asked whether anything comes of it
# What `evaluate.of` may name beside the global model.
LOCAL_SERVERS, WORKERS, FIRST_WORKER = "local_servers", "workers", "first_worker"
FIRST_ROUND = 64  # jobs per worker before that is asked at all


class Hopeless(Deadlock):
    """The run cannot progress: every job is lost, or nothing is ever committed."""


@dataclass
class BudgetOptions:
    """The limits of a run, whichever is reached first; at least one is required."""

    local_steps: Optional[int] = None  # committed by the global server; the commit that gets there counts whole
    tokens: Optional[int] = None  # the same, in predicted tokens
    # Trained by all workers, committed or not. No round is opened beyond it, and those that are open end as ever. Where
    # there are no rounds, it ends with the update that gets there, once its server has it; one that was sent to no
    # server counts with the next commit.
    trained_steps: Optional[int] = None
    trained_tokens: Optional[int] = None  # the same, in predicted tokens
    simulated_hours: Optional[float] = None  # ends it at that very moment; what is due then still happens
    # Ends it at the first validation loss at or below; needs `evaluate.every_local_steps` or `every_seconds`.
    target_loss: Optional[float] = None

    def __post_init__(self) -> None:
        if all(getattr(self, limit.name) is None for limit in fields(self)):
            raise ConfigError(
                "",
                "empty; give local_steps, tokens, trained_steps, trained_tokens, simulated_hours or target_loss",
            )
        for key in ("local_steps", "tokens", "trained_steps", "trained_tokens", "simulated_hours"):
            value = getattr(self, key)
            require(value is None or positive(value), key, value, "a positive number")
        if self.target_loss is not None:
            require(math.isfinite(self.target_loss), "target_loss", self.target_loss, "a finite number")

    def steps(self, tokens_per_step: int) -> float:
        """Committed local steps after which the budget is spent; infinite if neither steps nor tokens limit it."""
        return _fewer(self.local_steps, self.tokens, tokens_per_step)

    def trained(self, tokens_per_step: int) -> float:
        """Trained local steps after which the budget is spent; likewise."""
        return _fewer(self.trained_steps, self.trained_tokens, tokens_per_step)

    @property
    def seconds(self) -> float:
        """Virtual seconds after which the budget is spent; infinite if time does not limit it."""
        return math.inf if self.simulated_hours is None else self.simulated_hours * 3600.0


def _fewer(steps: Optional[int], tokens: Optional[int], tokens_per_step: int) -> float:
    """Return the fewer local steps of two limits."""
    by_tokens = math.inf if tokens is None else -(-tokens // tokens_per_step)
    return min(math.inf if steps is None else steps, by_tokens)


@dataclass
class EvaluateOptions:
    """When which models are evaluated beside the start and the end, and on what; it takes no virtual time."""

    every_local_steps: Optional[int] = None  # committed local steps between two evaluations; null: only first and last
    # Simulated seconds between two evaluations, of the models as they are when all that is due at that moment has
    # happened; null: none. Both intervals at once are fine.
    every_seconds: Optional[float] = None
    # `global`; `local_servers`, each by its name, from its first commit on; `workers`, the mean of the parameters where
    # each last was (where it began, if it is training); `first_worker`, those of worker 0 alone; a name that the policy
    # offers. A policy that has no such models goes without. null: `global`, and what the policy offers.
    of: Optional[list[str]] = None
    # Beside the data's own tail, which is called `validation`: `{wiki: {name: text, path: wiki}}`; of each, its
    # `validation_samples`. What makes a loss (`sequence_length` and the like) is as in `data`, unless said otherwise.
    sets: dict[str, DataSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every = self.every_local_steps
        require(every is None or every >= 1, "every_local_steps", every, "a positive number of steps, or null")
        seconds = self.every_seconds
        require(seconds is None or positive(seconds), "every_seconds", seconds, "a positive number, or null")
        require(self.of != [], "of", self.of, "a list of models, or null")
        if "validation" in self.sets:
            raise ConfigError("sets.validation", "is the name of the data's own held-out tail; choose another")


class Limits:
    """The limits of one run. `unreliable`: under faults the global server may be out of reach for ever."""

    def __init__(
        self,
        budget: BudgetOptions,
        tokens_per_step: int,
        evaluate_every: Optional[int],
        workers: int,
        ledger: Ledger,
        unreliable: bool,
    ) -> None:
        self.steps = budget.steps(tokens_per_step)  # committed
        self.trained = budget.trained(tokens_per_step)
        self.seconds = budget.seconds
        self.first_round = FIRST_ROUND * workers  # jobs, generously
        # Told whether the budget is spent whenever that is asked, before anything comes of the answer: up to the first
        # yes, the run is the one with any larger budget.
        self.asked: Optional[Callable[[bool], Any]] = None
        # Trained local steps, after which `look` is to be called.
        self.patience = self._allowed = GENEROUS * min(self.steps, self.trained)
        self._target = budget.target_loss
        self._every = evaluate_every
        self._evaluated = 0  # committed local steps, rounded down to a multiple of the interval, as upstream does
        self._ledger = ledger
        self._unreliable = unreliable
        self._looked = self._committed = 0  # local steps trained and committed when this was last looked at

    def spent(self, local_steps: float, trained: float) -> bool:
        """Whether so many committed (or planned) local steps spend the budget, or so many that are trained."""
        over = local_steps >= self.steps or trained >= self.trained
        if self.asked is not None:
            self.asked(over)
        return over

    def due(self, local_steps: int) -> bool:
        """Whether `local_steps` committed so far make an evaluation due (and note that it is made)."""
        if self._every is None or local_steps - self._evaluated < self._every:
            return False
        self._evaluated = local_steps // self._every * self._every
        return True

    def reached(self, losses: dict[str, float]) -> bool:
        """Whether `losses`, by evaluation set, meet the target loss: that on `validation` counts."""
        over = self._target is not None and losses.get("validation", math.inf) <= self._target
        if self.asked is not None:
            self.asked(over)
        return over

    def look(self, jobs: int, steps_per_job: float, now: float) -> None:
        """Warn, once, if several times the budget was trained and nothing committed; called when `patience` is over.

        Under faults it raises Hopeless if nothing was committed since it last looked: the run would never end.
        """
        if jobs <= self.first_round:
            return
        ledger = self._ledger
        if self._unreliable:
            if ledger.committed == self._committed:
                raise Hopeless(
                    f"{ledger.trained - self._looked} local steps trained, several times the budget, and none"
                    f" committed until {now:.6g} s; faults keep it from going on"
                )
            self._looked, self._committed = ledger.trained, ledger.committed
            self.patience = self._looked + self._allowed + self.first_round * steps_per_job
            return
        self.patience = math.inf
        if not ledger.committed:
            logger.warning(
                "%d local steps trained, several times the budget, and none committed: has the policy forgotten"
                " sim.commit?",
                ledger.trained,
            )
