"""The events of a trace as they are written, a line of JSON each; those of `names` are the first.

By hand and not by `json`, which takes several times as long; that quotes the texts that may hold anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Union

from halos.observers.trace.arrows import BEGINS, ENDS, Arrow, Arrows, Done
from halos.observers.trace.rows import MODELS, WAITING, Compute, Row, microseconds
from halos.values.records import ALL_REDUCE, GLOBAL, LostJob, Transfer
from halos.world.cluster import Cluster
from halos.world.faults import Impairment, Outage

Chunk = tuple[int, str]  # a moment, and the lines of an event and of the arrows bound to it


def of_commits(commits: list[Done], servers: list[str], drawn: Arrows) -> Iterator[Chunk]:
    """Every commit, and where a server took over another's model; the global model's local steps as a counter."""
    rows = {server: f'"pid":{MODELS},"tid":{tid},"ts":' for tid, server in enumerate(servers, start=1)}
    came, left = drawn.came, drawn.left
    for index, commit in enumerate(commits):
        ts, where = microseconds(commit.time), rows[commit.server]
        name = "merge of another model" if commit.version is None else f"commit {commit.version}"
        # A slice of no length: to an instant no arrow can be bound.
        text = f',\n{{"ph":"X",{where}{ts},"dur":0,"name":"{name}","cat":"commit"}}'
        for arrow in came.get(index, ()):
            text += _arrow(ENDS, arrow, where, ts)
        for arrow in left.get(index, ()):
            text += _arrow(BEGINS, arrow, where, ts)
        if commit.server == GLOBAL and commit.version is not None:  # shown as "committed local steps"
            steps = f'"args":{{"local steps":{commit.local_steps}}}'
            text += f',\n{{"ph":"C","name":"committed","pid":{MODELS},"ts":{ts},{steps}}}'
        yield ts, text


def of_losses(commits: list[Done], evaluated: list[tuple[float, str, float]]) -> Iterator[Chunk]:
    """The global model's losses, as a counter each."""
    losses = [(commit.time, "train", commit.loss) for commit in commits if commit.loss is not None]
    for time, name, loss in sorted(losses + evaluated):
        if math.isfinite(loss):
            ts, args = microseconds(time), f"{{{json.dumps(name)}:{loss!r}}}"
            yield ts, f',\n{{"ph":"C","name":"loss","pid":{MODELS},"ts":{ts},"args":{args}}}'


def of_worker(row: Row, tid: int, drawn: Arrows) -> Iterator[Chunk]:
    """A worker's row: its jobs, with the arrows of what they began from and of what they gave."""
    where = f'"pid":{row.process},"tid":{tid},"ts":'
    head = f',\n{{"ph":"X",{where}'
    _, pushes, pulled, trained, _, _ = drawn
    for start, end, what in row.slices:
        if isinstance(what, Transfer):
            text = f'{head}{start},"dur":{end - start},"name":"{what.kind}","cat":"transfer",{_size(what.bytes)}}}'
            arrow = pushes.get(id(what))
            yield start, text if arrow is None else text + _arrow(BEGINS, arrow, where, start)
        elif isinstance(what, Compute):
            _, _, _, steps, version, lr_step, job, _ = what
            text = (
                f'{head}{start},"dur":{end - start},"name":"train {steps} step{"s" if steps != 1 else ""}",'
                f'"cat":"compute","args":{{"from_version":{version},"lr_step":{lr_step}}}}}'
            )
            if job in pulled:
                text += _arrow(ENDS, pulled[job], where, start)
            yield start, text
            if job in trained:
                yield end - 1, _arrow(BEGINS, trained[job], where, end - 1)
        else:
            yield start, f'{head}{start},"dur":{end - start},"name":{_rare(what)}}}'


def of_link(row: Row, tid: int, drawn: Arrows) -> Iterator[Chunk]:
    """A link's row: what it carried, with the arrows that pass."""
    where = f'"pid":{row.process},"tid":{tid},"ts":'
    head = f',\n{{"ph":"X",{where}'
    links = drawn.links
    for start, end, what in row.slices:
        if isinstance(what, Transfer):
            kind, worker = what.kind, what.worker
            if worker is None:
                name = "all-reduce" if kind == ALL_REDUCE else kind
            else:
                name = f"{kind} {'to' if kind == 'pull' else 'from'} worker {worker}"
            text = f'{head}{start},"dur":{end - start},"name":"{name}","cat":"transfer",{_size(what.bytes)}}}'
            if id(what) in links:
                phase, arrow = links[id(what)]
                text += _arrow(phase, arrow, where, start)
            yield start, text
        else:
            yield start, f'{head}{start},"dur":{end - start},"name":{_rare(what)}}}'


@lru_cache(maxsize=1024)
def _size(nbytes: int) -> str:
    """The arguments of a transfer; its very bytes are in `transfers.jsonl`."""
    return f'"args":{{"MB":{nbytes / 1e6:.4g}}}'


def _rare(what: Union[Outage, Impairment, LostJob, str, object]) -> str:
    """The name of what is rare, its category, and what else there is to say of it."""
    if isinstance(what, str):
        return f'{json.dumps(what)},"cat":"{"wait" if what == WAITING else "unfinished"}"'
    if isinstance(what, Outage):
        return '"down","cat":"fault"'
    if isinstance(what, Impairment):
        return f'"{"slow" if what.share else "down"}","cat":"fault","args":{{"share":{what.share!r}}}'
    assert isinstance(what, LostJob), "nothing else is drawn"
    args = f'"steps":{what.steps},"why":{json.dumps(what.why)},"told_at_seconds":{what.time!r}'
    return f'"lost","cat":"fault","args":{{{args}}}'


def _arrow(phase: str, arrow: Arrow, where: str, ts: int) -> str:
    """The line of an arrow's beginning, middle or end, bound to the slice that was written before it."""
    if phase == ENDS:
        return f',\n{{"ph":"f",{arrow},{where}{ts},"bp":"e"}}'
    return f',\n{{"ph":"{phase}",{arrow},{where}{ts}}}'


def names(cluster: Cluster, servers: list[str], rows: list[Row]) -> Iterator[str]:
    """Yield the metadata events that name processes and rows, and put them in order."""
    processes = ["models", *(region.name for region in cluster.regions), "links"]
    for pid, name in enumerate(processes, start=MODELS):
        yield _named("process", f'"pid":{pid}', name, pid)
    for tid, server in enumerate(servers, start=1):
        yield _named("thread", f'"pid":{MODELS},"tid":{tid}', f"commits of {server}", tid)
    for tid, row in enumerate(rows, start=1 + len(servers)):
        yield _named("thread", f'"pid":{row.process},"tid":{tid}', row.name, tid)


def _named(what: str, where: str, name: str, position: int) -> str:
    head = f'{{"ph":"M",{where},"name":"{what}_'
    return (
        f'{head}name","args":{{"name":{json.dumps(name)}}}}},\n{head}sort_index","args":{{"sort_index":{position}}}}}'
    )
