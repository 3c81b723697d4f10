"""Conformance of observers: the run is as it is without them, and what they write does not depend on how it was cut."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest

from halos.config.config import resolved
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.hooks import hookimpl
from halos.run import lifecycle
from halos.run.resuming import load_run
from halos.testing.conformance.suite import JITTER, Suite
from halos.testing.situations import Situation
from halos.values.records import Update

QUIET: Section = {"progress": False, "tensorboard": False, "trace": False}
OWN = ("wall_seconds", "observers", "versions")  # of a summary: what an observer may change
CUTS = (2, 5, 7)  # after so many updates


class ObserverConformance(Suite):
    """Runs in folders: whole, cut as SIGKILL would and gone on with, interrupted, with and without the observer."""

    kind: ClassVar[str] = "observer"
    policies: ClassVar[Sequence[str]] = ("diloco", "async_local_sgd", "halos")  # that it is tried with

    def written(self, folder: Path, made: Sequence[str]) -> Any:
        """Return what the observer wrote, to be compared: the content of the files `made` in `folder` because of it.

        For files that hold more than what is compared (times of the day, say), another reading of them.
        """
        return {name: (folder / name).read_bytes() for name in made}

    @pytest.mark.parametrize("executor", ["inline", "timing"])
    def test_the_run_is_as_it_is_without_it(self, section: Section, executor: str, tmp_path: Path) -> None:
        """In all records, the model and the summary; trained, and timed only."""
        for policy in self.policies:
            changes = {"executor": {"name": executor}}
            alone = self.run_of(None, policy, tmp_path / f"{policy} alone", changes)
            watched = self.run_of(section, policy, tmp_path / policy, changes)
            for name in files(alone):
                if name not in ("config.yaml", "summary.json") and not name.startswith("checkpoints/"):
                    alike = (alone / name).read_bytes() == (watched / name).read_bytes()
                    self.check(alike, section, f"{policy}: {name} is another one with it")
            ours, theirs = (without(OWN, summary(folder)) for folder in (watched, alone))
            self.check(ours == theirs, section, f"{policy}: the summary is another one with it")

    def test_cut_and_resumed_it_writes_what_it_would_have_written(self, section: Section, tmp_path: Path) -> None:
        """Killed at several moments, and interrupted: its files and its numbers in the summary."""
        for policy in self.policies:
            alone = self.run_of(None, policy, tmp_path / f"{policy} alone")
            cutter = Cutter(tmp_path / policy, CUTS)
            whole = self.run_of(section, policy, tmp_path / policy, listener=cutter)
            expected = self.left(section, whole, alone)
            self.check(len(cutter.copies) == len(CUTS), section, f"{policy}: {len(cutter.copies)} cuts")
            interrupted = tmp_path / f"{policy} interrupted"
            with pytest.raises(KeyboardInterrupt):
                self.run_of(section, policy, interrupted, listener=Interrupt(CUTS[1]))
            cuts = {f"killed after {at} updates": copy for at, copy in zip(CUTS, cutter.copies)}
            for how, folder in {**cuts, "interrupted": interrupted}.items():
                self.resume(section, folder, f", {policy}, {how}")
                found = self.left(section, folder, alone)
                for what in {**expected, **found}:
                    said = f"{policy}, {how} and resumed: its {what} are not those of a run that was never cut"
                    self.check(found.get(what) == expected.get(what), section, said)

    def test_it_may_come_and_go_in_a_resumed_run(self, section: Section, tmp_path: Path) -> None:
        """Turned on at a resume, and off at the next; the records do not care."""
        alone = self.run_of(None, "diloco", tmp_path / "alone")
        folder = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            self.run_of(None, "diloco", folder, listener=Interrupt(CUTS[0]))
        options = json.dumps({key: value for key, value in section.items() if key != "name"})
        on, off = (f"observers.extra.{section['name']}={value}" for value in (options, "null"))
        with pytest.raises(KeyboardInterrupt):
            self.resume(section, folder, ", turned on later", [on], Interrupt(CUTS[1]))
        self.resume(section, folder, ", turned on later", [on])
        self.resume(section, folder, ", turned off later", [off])
        for name in files(alone):
            if name.endswith(".jsonl"):
                alike = (folder / name).read_bytes() == (alone / name).read_bytes()
                self.check(alike, section, f"turned on and off in resumed runs: {name} is another one")

    def test_its_numbers_fit_a_summary(self, section: Section, tmp_path: Path) -> None:
        """If it has a `summary`."""
        observers = summary(self.run_of(section, "diloco", tmp_path / "run"))["observers"]
        failed = section["name"] in observers and observers[section["name"]] is None
        self.check(not failed, section, "its summary() fails, or returns what JSON cannot hold")

    def run_of(
        self,
        section: Optional[Section],
        policy: str,
        folder: Path,
        changes: Optional[Section] = None,
        listener: Any = None,
    ) -> Path:
        """Run into `folder`, with a checkpoint wherever there can be one; observed if there is a `section`."""
        options = {} if section is None else {section["name"]: section}
        sections = merge(
            Situation(2, "jitter").sections(3, 4),
            {
                "policy": {"name": policy},
                "observers": {**QUIET, "extra": options},
                "checkpoint": {"every_minutes": None, "every_local_steps": 1},
                "evaluate": {"every_local_steps": 6},
                "out": str(folder),
            },
        )
        config, plugins = resolved(merge(sections, changes or {}), [*self.plugins, JITTER])
        if listener is not None:
            plugins.manager.register(listener)
        with self.about(section or {"name": "none"}, f", {policy}"):
            lifecycle.run(config, plugins)
        return folder

    def resume(
        self, section: Section, folder: Path, where: str, changes: Sequence[str] = (), listener: Any = None
    ) -> None:
        """Go on with the run in `folder`."""
        with self.about(section, where):
            config, plugins, earlier = load_run(folder, changes)
            if listener is not None:
                plugins.manager.register(listener)
            lifecycle.run(config, plugins, earlier)

    def left(self, section: Section, folder: Path, alone: Path) -> dict[str, Any]:
        """What the observer left in `folder`: more than what is in `alone`, the folder of a run without it."""
        ours = {name for name in files(alone) if not name.startswith("checkpoints/")}
        made = [name for name in files(folder) if name not in ours and not name.startswith("checkpoints/")]
        numbers = summary(folder)["observers"].get(section["name"])
        return {"files": self.written(folder, made), "numbers in the summary": numbers}


@dataclass
class Cutter:
    """Copies a run's folder after some of its updates, as SIGKILL would leave it."""

    folder: Path
    at: Sequence[int]
    heard: int = 0
    copies: list[Path] = field(default_factory=list)

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.heard += 1
        if self.heard in self.at:
            self.copies.append(Path(tempfile.mkdtemp(dir=self.folder.parent)) / "run")
            shutil.copytree(self.folder, self.copies[-1])


@dataclass
class Interrupt:
    """Ctrl-C, after so many updates."""

    at: int
    heard: int = 0

    @hookimpl
    def on_update(self, update: Update) -> None:
        self.heard += 1
        if self.heard == self.at:
            raise KeyboardInterrupt


def files(folder: Path) -> list[str]:
    """The files in a folder and those below it, by their paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def summary(folder: Path) -> dict[str, Any]:
    """What `summary.json` holds."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def without(keys: Sequence[str], section: dict[str, Any]) -> dict[str, Any]:
    """A dictionary less some of its keys."""
    return {key: value for key, value in section.items() if key not in keys}
