"""What observers keep in checkpoints is there again after a resume; what a checkpoint cannot keep is said at once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.errors import UserError
from halos.resume.observed import restore, states
from halos.testing.conformance import ObserverConformance
from tests.run.cutting import cut, go_on, make, refused, text

WATCHERS = '''
"""Observers whose numbers come from tensors, which a replay does not have."""

from dataclasses import dataclass, field
from zlib import crc32
from halos import Lines, hookimpl

@dataclass
class Norms:
    """Writes ‖start − end‖₁ of every update, and says how many there were and their sum."""

    twice: bool = False

    @hookimpl
    def on_start(self, experiment):
        self.count, self.sum, self.live = 0, 0.0, experiment.resumed_at is None
        self.lines = Lines(experiment.folder / "norms.jsonl", resumed=not self.live)

    @hookimpl
    def on_resume(self, time):
        self.live = True
        self.lines.go_on()

    @hookimpl
    def on_update(self, update):
        if self.live:
            norm = 0.0 if update.params.hollow else float((update.start - update.params).flat.abs().sum())
            self.count, self.sum = self.count + 1, self.sum + norm
            self.lines.add(f'{{"update": {update.id}, "norm": {norm!r}}}')

    @hookimpl
    def on_finish(self, summary):
        self.lines.close()

    def summary(self):
        return {"count": self.count, "sum": self.sum}

    def state(self):
        return {"count": self.count, "sum": self.sum, "lines": self.lines.state()}

    def restore(self, state):
        self.count, self.sum = state["count"], state["sum"]
        self.lines.restore(state["lines"])

class NoCount(Norms):
    def restore(self, state):
        self.lines.restore(state["lines"])

class NoCut(Norms):
    def restore(self, state):
        written = self.lines.path.read_bytes()
        super().restore({**state, "lines": {"length": len(written), "crc": crc32(written)}})

class Raises(Norms):
    def restore(self, state):
        raise KeyError("other")

class Draws(Norms):
    @hookimpl
    def on_update(self, update):
        update.params.flat is not None and update.params.flat.mul_(1.001)

class Sets(Norms):
    def summary(self):
        return {"workers": {1, 2}}

@hookimpl
def register_observers(register):
    for each in (Norms, NoCount, NoCut, Raises, Draws, Sets):
        register(each.__name__.lower(), each)
'''


@pytest.fixture(autouse=True)
def watchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The plugin's file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("watchers.py").write_text(WATCHERS)
    return "watchers.py"


def suite(tmp_path_factory: pytest.TempPathFactory) -> type[ObserverConformance]:
    class Watchers(ObserverConformance):
        policies = ("async_local_sgd",)
        plugins = (str(tmp_path_factory.getbasetemp() / "watchers.py"),)

    (tmp_path_factory.getbasetemp() / "watchers.py").write_text(WATCHERS)
    return Watchers


CUT, ALONE = "test_cut_and_resumed_it_writes_what_it_would_have_written", "test_the_run_is_as_it_is_without_it"


@pytest.mark.parametrize("name", [CUT, "test_it_may_come_and_go_in_a_resumed_run", "test_its_numbers_fit_a_summary"])
def test_one_with_a_state_passes_the_suite(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    getattr(suite(tmp_path_factory)(), name)({"name": "norms"}, tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("name", "test", "said"),
    [
        ("nocount", CUT, "'nocount': async_local_sgd, killed after 2 updates and resumed: its numbers in the summary"),
        ("nocut", CUT, "'nocut': async_local_sgd, interrupted and resumed: its files are not those"),
        ("raises", CUT, "'raises', async_local_sgd, killed after 2 updates: the run cannot be resumed: observers"),
        ("draws", ALONE, "'draws': async_local_sgd: .* is another one with it"),
        ("sets", "test_its_numbers_fit_a_summary", r"'sets': its summary\(\) fails, or returns what JSON cannot hold"),
    ],
)
def test_the_suite_finds_what_is_wrong_with_one(
    name: str, test: str, said: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    more = {"executor": "inline"} if test == ALONE else {}
    with pytest.raises(AssertionError, match=f"^observer {said}"):
        getattr(suite(tmp_path_factory)(), test)({"name": name}, tmp_path=tmp_path, **more)


def watched(**options: Any) -> str:
    return text(plugins=[str(Path("watchers.py").resolve())], observers={"extra": {"norms": options}})


def norms(folder: Path) -> list[float]:
    return [json.loads(line)["norm"] for line in (folder / "norms.jsonl").read_text().splitlines()]


def test_one_that_is_turned_on_later_begins_there_and_one_that_is_turned_off_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = norms(make(tmp_path, watched()))
    (folder,) = cut(monkeypatch, tmp_path, text(plugins=[str(Path("watchers.py").resolve())]), [8])
    go_on(folder, "observers.extra.norms=true")
    found = norms(folder)
    assert found == whole[-len(found) :] and 0 < len(found) < len(whole) and all(whole)
    go_on(folder, "observers.extra.norms=null")
    assert json.loads((folder / "summary.json").read_text())["observers"] == {}


def test_a_file_that_lost_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = cut(monkeypatch, tmp_path, watched(), [12])
    content = (folder / "norms.jsonl").read_bytes()
    (folder / "norms.jsonl").write_bytes(content[:-7])
    with pytest.raises(UserError, match=r"norms\.jsonl is not what this run wrote: 7 bytes of it are missing"):
        go_on(folder)


def test_one_that_cannot_go_on_is_named_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = text(plugins=[str(Path("watchers.py").resolve())], observers={"extra": {"raises": True}})
    (folder,) = cut(monkeypatch, tmp_path, config, [8])
    assert "observers.extra.raises cannot go on from what it saved: KeyError: 'other'" in refused(folder, capsys)


def test_a_plugin_that_only_watches_may_be_another_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Path("watchers.py").resolve()
    (folder,) = cut(monkeypatch, tmp_path, watched(), [8])
    plugin.write_text(WATCHERS.replace('"count": self.count, "sum"', '"updates": self.count, "sum"', 1))
    found = json.loads((go_on(folder) / "summary.json").read_text())
    assert list(found["observers"]["norms"]) == ["updates", "sum"] and str(plugin) in found["versions"]
    plugin.unlink()
    go_on(folder, "observers.extra.norms=null", "plugins=[]")
    assert json.loads((folder / "summary.json").read_text())["observers"] == {}


class Kept:
    def __init__(self, state: Any) -> None:
        self.kept = state

    def state(self) -> Any:
        return self.kept

    def restore(self, state: Any) -> None:
        self.kept = state


def test_states_are_kept_by_name_of_those_that_have_one() -> None:
    state = {"n": 1, "parts": [(2.5, None), {"t": torch.ones(2)}], "on": True, "text": "x"}
    assert states({"one": Kept(state), "silent": object()}) == {"one": state}
    one, other = Kept({}), Kept({"as": "it was"})
    restore({"one": one, "other": other}, {"one": state, "gone": {}})
    assert (one.kept, other.kept) == (state, {"as": "it was"})


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ([1], "list"),
        (None, "NoneType"),
        ({"late": Counter()}, "Counter"),
        ({"deep": [{"of": {1, 2}}]}, "set"),
        ({(1, 2): [3], "x": object()}, "object"),
        ({"parameter": torch.nn.Parameter(torch.ones(1))}, "Parameter"),
    ],
)
def test_what_a_checkpoint_could_not_be_read_with_is_refused_when_it_is_written(state: Any, what: str) -> None:
    if what in ("list", "NoneType"):
        with pytest.raises(TypeError, match=rf"observers\.extra\.one: its state\(\) is a {what}, not a dictionary"):
            states({"one": Kept(state)})
    else:
        with pytest.raises(TypeError, match=rf"observers\.extra\.one: its state\(\) holds a {what}; a checkpoint"):
            states({"one": Kept(state)})
