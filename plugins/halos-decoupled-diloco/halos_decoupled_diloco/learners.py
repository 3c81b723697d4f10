"""Learners: what a worker has trained, sent and been answered, fragment by fragment."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from halos import Event, Params, Update, Worker


@dataclass
class Part:
    """What a learner has to do with a fragment."""

    outer: Params  # Θ_p as last received
    applied: int = 0  # its local steps that are in Θ_p, and their samples
    samples: int = 0
    sent: int = 0  # its local steps that are in Θ_p or on their way
    due: Optional[int] = None  # the local step after which the answer is wanted, while one is outstanding
    under_way: bool = False  # whether a difference is between it and the syncer
    expected: bool = False  # whether the syncer may still get one without answering first
    answer: Optional[Params] = None


class Learner:
    """One life of a worker, from Θ until it crashes; its local steps `t` count from there."""

    def __init__(self, worker: Worker, theta: Params, outer: Sequence[Params]) -> None:
        self.worker, self.theta, self.parts = worker, theta, [Part(each) for each in outer]
        self.t = self.samples = 0
        self.stop = self.end = 0  # the local step at which its job ends, and its period
        self.pace = 0.0  # seconds per local step, in its last job
        self.chunks: deque[tuple[int, Update]] = deque()  # trained and not counted, with the local step they end at
        self.up, self.leaving = True, False
        self.news: Optional[Event[None]] = None  # an answer, if it waits for one

    def trained(self, update: Update) -> None:
        first, last = update.samples
        began, ended = update.compute
        self.theta, self.t, self.samples = update.params, self.t + update.steps, self.samples + last - first
        self.pace = (ended - began) / update.steps
        self.chunks.append((self.t, update.receipt()))

    def complete(self) -> list[Update]:
        """What has been applied in all fragments, once."""
        until, updates = min(part.applied for part in self.parts), []
        while self.chunks and self.chunks[0][0] <= until:
            updates.append(self.chunks.popleft()[1])
        return updates

    def unsent(self) -> list[Update]:
        """What was not sent in all fragments, once."""
        until, updates = min(part.sent for part in self.parts), []
        while self.chunks and self.chunks[-1][0] > until:
            updates.append(self.chunks.pop()[1])
        return updates
