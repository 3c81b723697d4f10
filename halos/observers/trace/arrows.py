"""The arrows of a trace: from what sends a model or an update to what it arrives at, by way of its link.

A *model* goes from the commit that made it over a link to the job that trains from it; an *update* from its push (or,
of a job without a server, from the end of its training) over a link to the first commit that takes it in; what a policy
*sends* to the commit at which it arrives, from the one at which it left. What a collective brings to a commit has its
arrow, and not one for every worker. Which commit a transfer follows or leads to is known by the very moment, and not
said where there are several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Optional

from halos.observers.trace.rows import Compute, Slice
from halos.values.records import ALL_REDUCE, Transfer

BEGINS, GOES_ON, ENDS = "s", "t", "f"  # phases, as the format calls them
MODEL, UPDATE = "model", "update"


class Done(NamedTuple):
    """A commit, with the jobs whose updates it took in; the version is None of a merge."""

    time: float
    version: Optional[int]
    server: str
    jobs: tuple[int, ...]
    local_steps: int
    loss: Optional[float]


Arrow = str  # its id and its name, as they are written


def _arrow(number: int, name: str) -> Arrow:
    return f'"id":{number},"cat":"way","name":"{name}"'


class Arrows(NamedTuple):
    """Where arrows begin, go on and end: ids and names, by what they are bound to."""

    links: dict[int, tuple[str, Arrow]]  # by id() of the transfer: on its link's row, the phase
    pushes: dict[int, Arrow]  # likewise, on its worker's row: there it begins
    pulled: dict[int, Arrow]  # by job: the model it begins from ends there
    trained: dict[int, Arrow]  # by job without a server: its update begins there
    left: dict[int, list[Arrow]]  # by commit: what begins there
    came: dict[int, list[Arrow]]  # by commit: what ends there


def arrows(
    computed: Iterable[tuple[int, int, Compute]], carried: list[Slice], commits: list[Done], not_drawn: list[Slice]
) -> Arrows:
    """Return the arrows between what is drawn; what takes no time (in microseconds) has none."""
    made = Arrows({}, {}, {}, {}, defaultdict(list), defaultdict(list))
    links, _, _, _, left, came = made
    hidden = {id(what) for _, _, what in not_drawn}
    taken: dict[int, int] = {}  # by job, the first commit that took it in
    for index, commit in enumerate(commits):
        for job in commit.jobs:
            taken.setdefault(job, index)
    at: dict[float, int] = {}  # the only commit of a moment; −1: there are several
    for index, commit in enumerate(commits):
        at[commit.time] = -1 if commit.time in at else index
    # All that a collective brings comes to one commit: its own arrow says so, for every job of the round.
    collected = {
        at.get(what.time, -1)
        for begins, ends, what in carried
        if begins < ends and isinstance(what, Transfer) and what.kind == ALL_REDUCE
    }
    last = -1
    for begins, ends, (_, _, worker, _, _, _, job, place) in computed:
        if job > last:
            last = job
        after = taken.get(job, -1)
        if place < 0:
            if after >= 0 and after not in collected and ends > begins:
                made.trained[job] = arrow = _arrow(2 * job + 2, UPDATE)
                came[after].append(arrow)
            continue
        for begins, ends, transfer in carried[max(0, place - 1) : place + 1]:
            if not isinstance(transfer, Transfer) or transfer.worker != worker or begins == ends:
                continue
            if hidden and id(transfer) in hidden:
                continue
            if transfer.kind == "push":
                arrow = made.pushes[id(transfer)] = _arrow(2 * job + 2, UPDATE)
                links[id(transfer)] = (ENDS if after < 0 else GOES_ON), arrow
                if after >= 0:
                    came[after].append(arrow)
            else:
                arrow = made.pulled[job] = _arrow(2 * job + 1, MODEL)
                before = at.get(transfer.start_time, -1)
                links[id(transfer)] = (BEGINS if before < 0 else GOES_ON), arrow
                if before >= 0:
                    left[before].append(arrow)
    number = 2 * last + 2
    for begins, ends, transfer in carried:
        if not isinstance(transfer, Transfer) or transfer.worker is not None or begins == ends:
            continue
        if id(transfer) in hidden:
            continue
        before = -1 if transfer.kind == ALL_REDUCE else at.get(transfer.start_time, -1)
        after = at.get(transfer.time, -1)
        if after < 0:  # it is followed to a commit, or not at all
            continue
        number += 1
        arrow = _arrow(number, transfer.kind)
        links[id(transfer)] = (BEGINS if before < 0 else GOES_ON), arrow
        if before >= 0:
            left[before].append(arrow)
        came[after].append(arrow)
    return made
