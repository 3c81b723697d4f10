"""A run's folder, read: its configuration, its summary, and its records as columns."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from halos.config.earlier import up_to_date
from halos.config.paths import expanded
from halos.config.references import interpolate
from halos.config.written import plain
from halos.config.yaml_text import SafeLoader, Section
from halos.errors import UserError, did_you_mean
from halos.observers.jsonl import COMMITS, EVALUATIONS, TRANSFERS, UPDATES
from halos.reading.columns import Columns, Gathering
from halos.reading.lines import batches
from halos.values.records import GLOBAL

# What the columns are called, also where nothing was recorded; docs/measures.md says what they mean.
UPDATE = [
    *("id", "time", "worker", "region", "steps", "start_time", "start_version", "global_version", "delta_norm"),
    *("first_sample", "end_sample", "lr_step", "loss", "losses", "server"),
]
TRANSFER = ["start_time", "time", "src", "dst", "bytes", "kind", "worker", "server"]
COMMIT = ["time", "version", "server", "kind", "local_steps", "norm", "step_norm", "contributions"]
OF_COMMIT = ["time", "version", "server"]  # of the commit it is in
OF_SHARE = ["steps", "from_version", "hop_staleness", "hop_drift"]
CONTRIBUTION = ["commit", *OF_COMMIT, "updates", *OF_SHARE]
OF_WAY = ["staleness", "seconds", "drift"]
MERGED = ["contribution", "commit", *OF_COMMIT, "update", "worker", "factor", *OF_WAY]
EVALUATION = ["time", "version", "local_steps", "trained_steps", "tokens", "loss", "set", "of"]


class RunRecords:
    """What there is in a run folder. Files are read when something of theirs is first asked for, and then kept."""

    def __init__(self, folder: Path, config: Section, summary: Optional[dict[str, Any]]) -> None:
        self.folder = folder
        self.config = config  # as resolved, in plain values
        self.summary = summary  # None: it is still going, or was killed before it could write one

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.config.get("name", self.folder.name))

    @property
    def labels(self) -> dict[str, Any]:
        """What its configuration calls it: `labels:`."""
        return dict(self.config.get("labels") or {})

    @property
    def finished(self) -> Union[bool, str, None]:
        """True, or what ended it (`interrupted`, `failed: …`); None without a summary."""
        return None if self.summary is None else self.summary.get("finished")

    @cached_property
    def updates(self) -> Columns:
        """`updates.jsonl`."""
        return self._flat(UPDATES, UPDATE)

    @cached_property
    def transfers(self) -> Columns:
        """`transfers.jsonl`."""
        return self._flat(TRANSFERS, TRANSFER)

    @cached_property
    def evaluations(self) -> Columns:
        """`evaluations.jsonl`, with a column `metrics.NAME` of each metric."""
        return self._flat(EVALUATIONS, EVALUATION)

    @property
    def commits(self) -> Columns:
        """`commits.jsonl`, a row per commit; `contributions` is how many it has."""
        return self._committed[0]

    @property
    def contributions(self) -> Columns:
        """A row per contribution to a commit; `commit` is the row in `commits`, `updates` how many it holds."""
        return self._committed[1]

    @property
    def merged(self) -> Columns:
        """A row per update in a contribution, which `contribution` gives as a row of `contributions`.

        `staleness`, `seconds` and `drift` are those end to end, NaN at other servers than the global one.
        """
        return self._committed[2]

    def curve(self, of: str = GLOBAL, set: str = "validation") -> Columns:
        """Return the evaluations of one model on one set, in order of time."""
        rows = self.evaluations
        return rows.where((rows["of"] == of) & (rows["set"] == set))

    def records(self, name: str) -> Columns:
        """Return any `NAME.jsonl` of the folder, such as a plugin's. Raises UserError if there is none."""
        if not (self.folder / f"{name}.jsonl").exists():
            there = sorted(path.stem for path in self.folder.glob("*.jsonl"))
            hint = did_you_mean(name, there)
            raise UserError(f"{self.folder} has no {name}.jsonl{hint}; there are: {', '.join(there) or 'none'}")
        return self._flat(f"{name}.jsonl", ())

    def __repr__(self) -> str:
        return f"<run {str(self.folder)!r}: {'not finished' if self.finished is None else self.finished}>"

    def _flat(self, file: str, names: Sequence[str]) -> Columns:
        gathering = Gathering(names)
        for records in batches(self.folder / file):
            gathering.add(records)
        return gathering.columns()

    @cached_property
    def _committed(self) -> tuple[Columns, Columns, Columns]:
        try:
            return self._gathered()
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{self.folder / COMMITS} holds what is no commit") from None

    def _gathered(self) -> tuple[Columns, Columns, Columns]:
        """Commits, their contributions, and the updates of these."""
        commits, contributions, merged = Gathering(COMMIT), Gathering(CONTRIBUTION), Gathering(MERGED)
        commit_rows = contribution_rows = 0
        for records in batches(self.folder / COMMITS):
            shares = [(row, each) for row, commit in enumerate(records) for each in commit.get("contributions") or ()]
            updates = [
                (row, share, position)
                for row, (_, share) in enumerate(shares)
                for position in range(len(share.get("updates") or ()))
            ]
            ways = [_at(share, "end_to_end", place) or {} for _, share, place in updates]
            of = [records[row] for row, _ in shares]
            theirs = [of[row] for row, _, _ in updates]
            for record in records:
                if record.get("contributions") is not None:
                    record["contributions"] = len(record["contributions"])
            commits.add(records)
            contributions.put(
                len(shares),
                {
                    "commit": [commit_rows + row for row, _ in shares],
                    **{key: [commit.get(key) for commit in of] for key in OF_COMMIT},
                    "updates": [len(share.get("updates") or ()) for _, share in shares],
                    **{key: [share.get(key) for _, share in shares] for key in OF_SHARE},
                },
            )
            merged.put(
                len(updates),
                {
                    "contribution": [contribution_rows + row for row, _, _ in updates],
                    "commit": [commit_rows + shares[row][0] for row, _, _ in updates],
                    **{key: [commit.get(key) for commit in theirs] for key in OF_COMMIT},
                    "update": [share["updates"][place] for _, share, place in updates],
                    "worker": [_at(share, "workers", place) for _, share, place in updates],
                    "factor": [_at(share, "factors", place) for _, share, place in updates],
                    **{key: [way.get(key) for way in ways] for key in OF_WAY},
                },
            )
            commit_rows += len(records)
            contribution_rows += len(shares)
        return commits.columns(), contributions.columns(), merged.columns()


def read(folder: Union[str, os.PathLike[str]]) -> RunRecords:
    """Read a run's folder: one that is over, was interrupted or killed, or is still going (as far as it is).

    Raises UserError, of one line, if `folder` is no run's, or something in it cannot be read.
    """
    place = Path(expanded(os.fspath(folder)))
    if not place.is_dir():
        raise UserError(f"{place} is no run folder: " + ("it is a file" if place.exists() else "it does not exist"))
    return RunRecords(place, _config(place), _summary(place / "summary.json"))


def _at(share: dict[str, Any], key: str, place: int) -> Any:
    """What a contribution has of one of its updates; None if it has not, as of an older version of halos."""
    values = share.get(key)
    return values[place] if values and place < len(values) else None


def _config(folder: Path) -> Section:
    path = folder / "config.yaml"
    if not path.is_file():
        several = " (it is a sweep's: each folder in it is a run's)" if (folder / "sweep.json").is_file() else ""
        raise UserError(f"{folder} is no run folder: there is no config.yaml in it{several}")
    text = _text(path)
    try:
        section = yaml.load(text, SafeLoader)  # ours, and not OmegaConf's, which takes fifty times as long
    except (yaml.YAMLError, RecursionError):
        section = None
    if not isinstance(section, dict):
        raise UserError(f"{path} is no run's configuration")
    section = up_to_date(section)
    return plain(interpolate(section)) if "${" in text else section


def _summary(path: Path) -> Optional[dict[str, Any]]:
    if not path.exists():
        return None
    try:
        summary = json.loads(_text(path))
    except ValueError:
        summary = None
    if not isinstance(summary, dict):
        raise UserError(f"{path} is no run's summary")
    return summary


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
