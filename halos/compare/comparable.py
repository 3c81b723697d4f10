"""What stands between runs and a comparison of their losses: another corpus, another validation set, no losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from halos.compare.scale import amount
from halos.errors import from_here
from halos.values.records import DIVERGED

if TYPE_CHECKING:
    from halos.compare.groups import Group
    from halos.reading.columns import Columns
    from halos.reading.run import RunRecords

    _Seeded = tuple[int, RunRecords]

# Of `data`: what changes which samples are dealt or held out, and not what they are cut from.
DEALT = {"seed", "split_seed", "shuffle", "shards", "wrap", "cache", "hold_out"}
MEASURED = {"sequence_length": "evaluation length", "validation_samples": "validation set"}  # what they are of
HASH = 8  # characters of a hash that is shown


def diverged(run: RunRecords) -> bool:
    """Whether the run was given up since a loss was no finite number any more."""
    return isinstance(run.finished, str) and run.finished.startswith(DIVERGED)


def losses_known(run: RunRecords) -> bool:
    """Whether the run has losses at all: rows without a number are none."""
    return bool(len(_evaluated(run)))


def obstacles(groups: Sequence[Group], baseline: Group) -> dict[Path, str]:
    """By folder, why a run's losses cannot be compared with those of the others.

    Others are as many as possible: the run that most of them can be compared with is what they are held against, the
    baseline's if several would do. The same seed must have the same validation set; seeds may differ in theirs.
    """
    found, rest = {}, []
    for group in [baseline, *(group for group in groups if group is not baseline)]:
        for seed, run in group.runs.items():
            if diverged(run):
                found[run.folder] = f"{_ended(run)}; its losses are not compared"
            elif not losses_known(run):
                timing = _section(run, "executor").get("name") == "timing"
                found[run.folder] = "a timing run, without losses" if timing else "no validation losses"
            elif not _evaluated(run)["tokens"][-1] > 0:
                found[run.folder] = "not evaluated since it began to train; its losses are not compared"
            else:
                rest.append((seed, run))
    if not rest:
        return found
    held = _most_like(rest, rest)
    if _hash(held[1]) is None:  # not known yet, as of a run still going: it would be like runs of two corpora at once
        held = _most_like([each for each in rest if _hash(each[1]) and _differs(held, each) is None] or [held], rest)
    for each in rest:
        problem = _differs(held, each)
        if problem is not None:
            found[each[1].folder] = f"{problem} {from_here(held[1].folder)}; its losses are not compared"
    return found


def _most_like(several: Sequence[_Seeded], others: Sequence[_Seeded]) -> _Seeded:
    """The first of those that can be compared with most others."""
    return max(several, key=lambda each: sum(_differs(each, other) is None for other in others))


def _differs(ours: _Seeded, theirs: _Seeded) -> Optional[str]:
    """What their losses were measured on and ours were not, up to `than`; None if they can be compared."""
    (our_seed, held), (seed, run) = ours, theirs
    one, other = _section(held, "data"), _section(run, "data")
    hashes = _hash(held), _hash(run)
    for key, of in MEASURED.items():
        if one.get(key) != other.get(key):
            return f"another {of} (data.{key} {other.get(key)}, not {one.get(key)}) than"
    same_source = _source(one) == _source(other)
    # A source whose samples are drawn has another corpus for every split seed; files that were edited have it for one.
    if None not in hashes and hashes[0] != hashes[1] and not (same_source and split_seed(held) != split_seed(run)):
        return f"another corpus (hash {str(hashes[1])[:HASH]}, not {str(hashes[0])[:HASH]}) than"
    if None in hashes and not same_source:
        return "another corpus, as configured (data), than"
    if our_seed == seed and split_seed(held) != split_seed(run):
        return f"another validation set (split seed {split_seed(run)}, not {split_seed(held)}) than"
    if bool(one.get("shuffle", True)) != bool(other.get("shuffle", True)):
        return f"another validation set (data.shuffle {_said(other)}, not {_said(one)}) than"
    return None


def progress(run: RunRecords) -> Optional[str]:
    """What a run that is not finished is; None if it is, or diverged."""
    if run.finished is True or diverged(run):
        return None
    tokens = run.evaluations["tokens"]
    far = f" ({amount(float(tokens[-1]), 'tokens')})" if len(tokens) else ""
    if run.finished is None:
        return f"still going, or killed; compared as far as it is{far}"
    return f"{_ended(run)}; compared as far as it came{far}"


def _ended(run: RunRecords) -> str:
    """How it ended, in one line."""
    return " ".join(str(run.finished).split())


def split_seed(run: RunRecords) -> Any:
    """The seed that decides what is held out."""
    own = _section(run, "data").get("split_seed")
    return run.config.get("seed") if own is None else own


def _source(data: dict[str, Any]) -> dict[str, Any]:
    """What samples are cut from, as configured."""
    return {key: value for key, value in data.items() if key not in DEALT}


def _hash(run: RunRecords) -> Optional[str]:
    return ((run.summary or {}).get("data") or {}).get("hash")


def _section(run: RunRecords, name: str) -> dict[str, Any]:
    found = run.config.get(name)
    return found if isinstance(found, dict) else {}


def _evaluated(run: RunRecords) -> Columns:
    rows = run.curve()
    return rows.where(np.isfinite(rows["loss"].astype(np.float64)))


def _said(data: dict[str, Any]) -> str:
    return str(bool(data.get("shuffle", True))).lower()
