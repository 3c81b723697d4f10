"""Weights & Biases: a run's curves, configuration and summary there, online or to be uploaded later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from halos import (
    Commit,
    Evaluation,
    Experiment,
    LostJob,
    Register,
    Summary,
    Transfer,
    Update,
    hookimpl,
    positive,
    require,
)
from halos_wandb.rows import Row, Rows
from halos_wandb.session import Session, known

MODES = ("online", "offline", "disabled")
LONGEST_TAG = 64  # characters
LONGEST_PROJECT, NOT_IN_PROJECTS = 128, "/\\#?%:"
SHARES = ("compute", "transfer", "idle", "down")


@dataclass
class WandB:
    """Logs the run to Weights & Biases: against simulated time, tokens and local steps; a resumed run goes on there.

    Curves of loss are there three times, against each of the axes; all others are against simulated hours. The
    configuration is the run's, with its labels; the summary is that of `summary.json`.
    """

    # `online`; `offline`: kept in the run folder, for `wandb sync`; `disabled`; null: what WANDB_MODE says, or online.
    mode: Optional[str] = None
    project: str = "halos"  # made if it is not there
    entity: Optional[str] = None  # a user or team; null: WANDB_ENTITY, or one's own
    group: Optional[str] = None  # of runs that are shown as one, such as seeds; null: WANDB_RUN_GROUP, or none
    job_type: Optional[str] = None  # within a group
    notes: Optional[str] = None  # a longer text
    tags: list[str] = field(default_factory=list)  # beside `labels`, which are tags as `key: value`
    points: int = 500  # of a curve: all of its first, then one whenever there are 1/points more
    finish_seconds: float = 300.0  # of the wall, that the end waits for uploads; `wandb sync` has the rest

    def __post_init__(self) -> None:
        require(self.mode in (None, *MODES), "mode", self.mode, f"one of {', '.join(MODES)}, or null")
        named = 0 < len(self.project) <= LONGEST_PROJECT and not set(self.project) & set(NOT_IN_PROJECTS)
        require(
            named, "project", self.project, f"a name of 1 to {LONGEST_PROJECT} characters without any of / \\ # ? % :"
        )
        for index, tag in enumerate(self.tags):
            require(0 < len(tag) <= LONGEST_TAG, f"tags[{index}]", tag, f"a text of 1 to {LONGEST_TAG} characters")
        require(self.points >= 1, "points", self.points, "a positive number of points")
        require(positive(self.finish_seconds), "finish_seconds", self.finish_seconds, "a positive number of seconds")

    @hookimpl
    def on_start(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._rows = Rows(experiment, self.points)
        self._id: Optional[str] = None
        self._session: Optional[Session] = None
        self._waiting: list[Row] = []  # until there is a session
        if experiment.resumed_at is None:
            self._open().drop_earlier(resumed=False)

    def restore(self, state: dict[str, Any]) -> None:
        self._id = state["id"]

    @hookimpl
    def on_resume(self, time: float) -> None:
        """All rows have come again: those that the run has not are logged; offline, the new one has them all."""
        resumed, session = self._id is not None, self._open()
        for row in self._waiting:
            session.log(row)
        self._waiting.clear()
        session.drop_earlier(resumed)

    def state(self) -> dict[str, Any]:
        return {"id": self._id}

    @hookimpl
    def on_update(self, update: Update) -> None:
        self._rows.update(update)

    @hookimpl
    def on_lost(self, lost: LostJob) -> None:
        self._rows.lost(lost)

    @hookimpl
    def on_transfer(self, transfer: Transfer) -> None:
        self._rows.transfer(transfer)

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        self._log(self._rows.commit(commit))

    @hookimpl
    def on_evaluate(self, evaluation: Evaluation) -> None:
        self._log(self._rows.evaluation(evaluation))

    @hookimpl
    def on_finish(self, summary: Summary) -> None:
        if self._session is not None:
            for row in self._rows.rest():
                self._session.log(row)
            self._session.close({**summary, "workers": None, "regions": self._regions(summary)}, summary["finished"])

    def _open(self) -> Session:
        config, versions = self._experiment.config, self._experiment.versions
        labels = [f"{key}: {value}"[:LONGEST_TAG] for key, value in config.get("labels", {}).items()]
        self._session = Session(
            self._experiment.folder,
            self._id,
            self.finish_seconds,
            mode=self.mode,
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type=self.job_type,
            notes=self.notes,
            name=self._experiment.name,
            tags=[*dict.fromkeys([*self.tags, *labels])] or None,
            config=known({**config, "versions": versions}),
        )
        self._id = self._session.id
        return self._session

    def _log(self, row: Optional[Row]) -> None:
        if row is None:
            return
        if self._session is None:
            self._waiting.append(row)
        else:
            self._session.log(row)

    def _regions(self, summary: Summary) -> dict[str, dict[str, float]]:
        """By region, how its workers spent the simulated time, on average."""
        found = {}
        for region in self._experiment.cluster.regions:
            workers = [worker for worker in summary.get("workers", []) if worker["region"] == region.index]
            if workers:
                found[region.name] = {share: sum(each[share] for each in workers) / len(workers) for share in SHARES}
        return found


@hookimpl
def register_observers(register: Register) -> None:
    register("wandb", WandB)
