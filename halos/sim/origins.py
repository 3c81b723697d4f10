"""Origins: what each update in flight was computed from, until the global model takes it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from halos.values.params import Params
from halos.values.records import Update


@dataclass
class RecordOptions:
    """What a run records that costs memory."""

    # How far the global model is from where an update began, when it takes it in (`end_to_end` in `commits.jsonl`):
    # keeps that start until then. Where updates wait long (HALoS: up to K per local server), switch it off for a model
    # of which so many copies do not fit into memory; all of these drifts are null then.
    end_to_end_drift: bool = True


class Origins:
    """The start of every update that has arrived and is neither committed to the global model nor dropped."""

    def __init__(self, options: RecordOptions) -> None:
        self._kept = options.end_to_end_drift
        self._starts: dict[int, Params] = {}  # by update

    def add(self, update: Update) -> None:
        """Keep the start of an update that has arrived."""
        if self._kept:
            self._starts[update.id] = update.start

    def take(self, update: Update) -> Optional[Params]:
        """Return where the update began, which is not kept from now on; None if it was not kept."""
        return self._starts.pop(update.id, None)
