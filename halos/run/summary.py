"""A run's summary: what it was, what came of it, and how it ended."""

from __future__ import annotations

import json
import logging
from typing import Any, Union

from halos.errors import Died, Diverged, Lost, UserError
from halos.observers.lines import plain
from halos.observers.tally import Tally
from halos.plugins.optional import call, has
from halos.run.assembly import Run
from halos.sim.clock import Deadlock
from halos.values.records import DIVERGED, CutShort, Summary

logger = logging.getLogger(__name__)


def summarise(run: Run, tally: Tally, wall_seconds: float, finished: Union[bool, str]) -> Summary:
    """Everything that `summary.json` has; the tally's books are closed by it."""
    config, experiment, simulation = run.config, run.experiment, run.simulation
    ledger = simulation.ledger
    under_way = sorted(simulation.jobs.running.items())
    running = [CutShort(worker, *course.moments, course.steps) for worker, course in under_way]
    cut_short = [*(CutShort(worker, *course.moments) for worker, course in simulation.losses.spent), *running]
    data, dealt = config.executor.describe(), ledger.trained * config.train.batch_size
    books = tally.finish(simulation.now, cut_short, simulation.collectives.since, simulation.faults.outages())
    return {
        "name": experiment.name,
        "policy": experiment.policy,
        "seed": experiment.seed,
        "parameters": experiment.parameters,
        **books,
        "wall_seconds": wall_seconds,
        "tokens": ledger.trained * experiment.tokens_per_step,
        "steps": {
            "trained": ledger.trained,
            "committed": ledger.committed,
            "dropped": ledger.dropped,
            "in_flight": ledger.in_flight,
            "lost": ledger.lost,
        },
        "unfinished": {
            "jobs": [job.as_dict() for job in running],
            "collective_since": simulation.collectives.since,
        },
        "links": simulation.links(),
        "skipped_steps": call(config.executor, "skipped_steps"),
        "lost": simulation.faults.lost(),
        "data": {**data, "epochs": dealt / data["train_samples"]} if "train_samples" in data else data,
        "goodput": tally.goodput(simulation.now),
        "expected_goodput": tally.expected_goodput(
            simulation.now, ledger.dropped_seconds, ledger.pending_seconds, running
        ),
        "policy_report": _own(config.policy, "report", "policy_report", finished),
        "observers": {
            name: _own(observer, "summary", f"observers.{name}", finished)
            for name, observer in config.observers.extra.items()
            if has(observer, "summary")
        },
        "versions": experiment.versions,
        "finished": finished,
    }


def ended_by(error: BaseException) -> str:
    """Return `finished` as the summary has it for a run that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Diverged):
        return f"{DIVERGED}{error}"
    expected = isinstance(error, (UserError, Deadlock, Lost, Died))
    return f"failed: {error}" if expected else f"failed: {type(error).__name__}: {error}"


def _own(component: Any, method: str, key: str, finished: Union[bool, str]) -> Any:
    """A component's own numbers, as JSON has them; nothing without the method, None if it fails to say them."""
    if not has(component, method):
        return {}
    try:
        made = plain(call(component, method))
        json.dumps(made)
        return made
    except Exception as error:
        if finished is True:  # otherwise it may just have had no time to count anything
            logger.error(
                "%s: %s.%s() failed: %s: %s", key, type(component).__name__, method, type(error).__name__, error
            )
        return None
