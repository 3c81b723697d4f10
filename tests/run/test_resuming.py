"""A run that was cut off and is resumed is, bit for bit, the run that was never cut off; or it is refused, by name."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from halos.config.layers import merge, read
from halos.config.yaml_text import Section, to_yaml
from halos.errors import ConfigError
from halos.resume.checkpoint import newest
from halos.run.cli import main
from tests.run.cutting import (
    CASES,
    NOISY,
    PLUGINS,
    ROOT,
    Cutter,
    cut,
    events_of,
    go_on,
    make,
    refused,
    text,
    what_it_left,
)

NONE = ("checkpoint.every_minutes=null", "checkpoint.at_end=false")


@pytest.fixture(autouse=True)
def plugins_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins are modules that a configuration names; to look for installed ones takes longer than these runs."""
    monkeypatch.setattr(importlib.metadata, "distributions", list)
    for file in PLUGINS.values():
        monkeypatch.syspath_prepend(file.parent)


def shorten(folder: Path, random: random.Random) -> None:
    """The last lines of every record file did not reach the disk, nor the end of the last that did."""
    for path in folder.glob("*.jsonl"):
        content = path.read_bytes()
        path.write_bytes(content[: random.randint(0, len(content))])


@pytest.mark.parametrize("name", CASES)
def test_a_run_resumed_from_any_of_ten_moments_is_the_run_never_cut(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, drawn = text(name), random.Random(name)
    whole, events = events_of(monkeypatch, tmp_path, config)
    expected = what_it_left(whole)
    plain = what_it_left(make(tmp_path, config, *NONE, out="plain"))  # without checkpoints
    assert plain == {**expected, "summary": plain["summary"]}
    moments = [0, events, *drawn.sample(range(1, events), 3 if name.startswith("a transformer") else 8)]
    cuts = cut(monkeypatch, tmp_path, config, moments)
    assert len(cuts) == len(moments)  # among them before the very first and the very last event
    for folder in cuts:
        if drawn.random() < 0.5:
            shorten(folder, drawn)
        found = what_it_left(go_on(folder))
        assert found.keys() == expected.keys()
        assert [key for key in expected if found[key] != expected[key]] == [], folder.name
    if name.startswith("a transformer"):
        assert any(key.startswith("scalar: loss/train") for key in expected)


@pytest.mark.parametrize("name", ["halos", "streaming_diloco, eager"])
def test_a_resumed_run_may_be_cut_and_resumed_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, events = events_of(monkeypatch, tmp_path, text(name))
    (once,) = cut(monkeypatch, tmp_path, text(name), [events // 3])
    with monkeypatch.context() as patch:
        cutter = Cutter(patch, [events // 2], lambda: 3)
        go_on(once)
    (twice,) = cutter.cuts
    assert what_it_left(go_on(twice)) == what_it_left(whole)


@pytest.mark.parametrize("name", ["halos", "eager_diloco", "overlap_local_sgd", "one_step_delay by two"])
def test_lines_written_after_the_checkpoint_are_neither_doubled_nor_lost(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, events = events_of(monkeypatch, tmp_path, text(name))
    (folder,) = cut(monkeypatch, tmp_path, text(name), [events // 2], lag=events // 4)
    assert what_it_left(go_on(folder)) == what_it_left(whole)


def test_a_finished_run_resumed_with_the_same_budget_ends_as_it_did(tmp_path: Path) -> None:
    folder = make(tmp_path, text(), "checkpoint.every_local_steps=40")
    before = what_it_left(folder)
    assert what_it_left(go_on(folder)) == before


# A larger budget


def trained_before(folder: Path) -> int:
    """Local steps that a run in `folder`, resumed, does not train again."""
    return newest(folder / "checkpoints")[0].timeline["trained"]


@pytest.mark.parametrize("name", CASES)
def test_any_finished_run_can_be_extended_and_is_the_longer_run(name: str, tmp_path: Path) -> None:
    longer = what_it_left(make(tmp_path, text(name, budget={"local_steps": 128})))
    folder = make(tmp_path, text(name), out="shorter")
    assert 32 <= trained_before(folder) <= 80  # who opens rounds ahead refuses the first two rounds before the end
    assert what_it_left(go_on(folder, "budget.local_steps=128")) == longer


def test_a_policy_that_does_not_overlap_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    folder = make(tmp_path, text())  # 16 local steps a round, and 64 in all
    assert trained_before(folder) == 64


def test_a_run_may_be_extended_again_and_again(tmp_path: Path) -> None:
    longest = what_it_left(make(tmp_path, text("halos", budget={"local_steps": 160}), out="longest"))
    folder = make(tmp_path, text("halos"))
    for budget in (65, 96, 160):
        found = what_it_left(go_on(folder, f"budget.local_steps={budget}"))
        assert len(list((folder / "checkpoints").iterdir())) == 1
    assert found == longest


def test_a_killed_run_that_had_spent_its_budget_ends_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path, text(), out="whole")
    expected = what_it_left(whole)
    for name in ("summary.json", "model.pt"):  # it was killed before these were written
        (whole / name).unlink()
    assert what_it_left(go_on(whole)) == expected


def test_a_run_without_training_is_extended_from_its_start_and_keeps_nothing_for_that(tmp_path: Path) -> None:
    longer = make(tmp_path, text("halos", budget={"local_steps": 128}, executor={"name": "timing"}), out="longer")
    folder = make(tmp_path, text("halos", executor={"name": "timing"}), out="shorter")
    (path,) = (folder / "checkpoints").iterdir()
    assert path.name.startswith("events-000000000000-")
    go_on(folder, "budget.local_steps=128")
    for name in ("updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl"):
        assert (folder / name).read_bytes() == (longer / name).read_bytes()


STATELESS = """
from dataclasses import dataclass
from halos import Inline, hookimpl

@dataclass
class Stateless(Inline):
    state = None

@hookimpl
def register_executors(register): register("stateless", Stateless)
"""


def test_an_executor_without_state_runs_without_checkpoints_unless_they_are_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stateless.py").write_text(STATELESS, encoding="utf-8")
    config = text(executor={"name": "stateless"}, plugins=[str(tmp_path / "stateless.py")])
    folder = make(tmp_path, config)
    assert not (folder / "checkpoints").exists()
    assert caplog.messages == []
    assert "holds no checkpoint" in refused(folder, capsys)
    with pytest.raises(ConfigError, match="checkpoint: executor Stateless cannot: it has no methods state and restore"):
        make(tmp_path, config, "checkpoint.every_minutes=1", out="asked")


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ({"simulated_hours": 0.01}, {"simulated_hours": 0.02}),
        ({"tokens": 512, "local_steps": None}, {"tokens": 1024, "local_steps": None}),
        ({"target_loss": 0.5, "local_steps": 128}, {"target_loss": 0.01, "local_steps": 128}),
        ({"target_loss": 0.5}, {"target_loss": None, "local_steps": 128}),
    ],
    ids=["simulated_hours", "tokens", "target_loss", "no target_loss"],
)
def test_every_kind_of_budget_may_grow(shorter: Section, longer: Section, tmp_path: Path) -> None:
    whole = make(tmp_path, text("async_local_sgd", budget=longer), out="longer")
    folder = make(tmp_path, text("async_local_sgd", budget=shorter))
    steps = sum(json.loads(line)["steps"] for line in (folder / "updates.jsonl").read_text().splitlines())
    assert trained_before(folder) == steps > 0
    assert (folder / "commits.jsonl").stat().st_size < (whole / "commits.jsonl").stat().st_size
    changes = [f"budget.{key}={'null' if value is None else value}" for key, value in longer.items()]
    assert what_it_left(go_on(folder, *changes)) == what_it_left(whole)


@pytest.mark.parametrize("name", ["diloco", "halos", "halos, crashes", "overlap_local_sgd", "data_parallel, signs"])
@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ({"trained_steps": 64}, {"trained_steps": 128}),
        ({"trained_tokens": 512}, {"trained_tokens": 800}),
        ({"simulated_hours": 0.01}, {"simulated_hours": 0.017}),
    ],
    ids=["trained_steps", "trained_tokens", "simulated_hours"],
)
def test_what_is_trained_and_evaluated_by_time_goes_on_with_a_larger_budget(
    name: str, shorter: Section, longer: Section, tmp_path: Path
) -> None:
    evaluate = {"every_local_steps": 24, "every_seconds": 2.9, "of": ["global", "workers", "local_servers"]}
    neither = {"local_steps": None, "trained_steps": None, "trained_tokens": None, "simulated_hours": None}
    whole = what_it_left(make(tmp_path, text(name, budget=neither | longer, evaluate=evaluate), out="longer"))
    folder = make(tmp_path, text(name, budget=neither | shorter, evaluate=evaluate))
    assert trained_before(folder) > 0
    changes = [f"budget.{key}={'null' if value is None else value}" for key, value in (neither | longer).items()]
    assert what_it_left(go_on(folder, *changes)) == whole


def test_a_run_cut_again_keeps_the_larger_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, text(), "checkpoint.every_local_steps=32")
    killed = fork(lambda: go_on(folder, "budget.local_steps=128"), lambda patch: kill_at_update(patch, 18))
    assert killed
    assert not (folder / "summary.json").exists(), "it is not over any more"
    longer = make(tmp_path, text(budget={"local_steps": 128}), out="longer")
    assert what_it_left(go_on(folder))["commits.jsonl"] == (longer / "commits.jsonl").read_bytes()


# What is refused


REFUSED = [
    ("budget.local_steps=50", "budget.local_steps: 50 is less than the run's 64; a budget may only grow"),
    ("budget.target_loss=0.5", "budget.target_loss: 0.5 is easier than the run's null; a budget may only grow"),
    ("train.optimizer.lr=0.2", "train.optimizer.lr: is 0.03 in this run and cannot become 0.2"),
    ("data.samples=2048", "data.samples: is 4096 in this run and cannot become 2048"),
    ("seed=1", "seed: is 1234 in this run and cannot become 1"),
    ("policy.name=async_local_sgd", "policy.name: is 'diloco' in this run and cannot become 'async_local_sgd'"),
    ("executor.name=timing", "executor.name: is 'inline' in this run and cannot become 'timing'"),
    ("out=elsewhere", "out: is "),
    ("train.optimiser.lr=1", "train.optimiser"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints."""
    return make(tmp_path_factory.mktemp("finished"), text(), "checkpoint.every_local_steps=32")


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[change for change, _ in REFUSED])
def test_another_experiment_is_refused_by_name(
    change: str, said: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"error: {said}" in refused(finished, capsys, change)


def test_labels_observers_and_the_place_of_the_executor_may_change(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    for name in ("updates.jsonl", "transfers.jsonl"):  # as if only commits had been recorded
        (folder / name).unlink()
    go_on(folder, "executor.device=cpu", "observers.trace=true", "checkpoint.every_minutes=5", "labels.method=ours")
    assert read(folder / "config.yaml")["labels"] == {"method": "ours"}
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == {
        path.name: path.read_bytes() for path in finished.glob("*.jsonl")
    }


def test_where_an_executor_computes_that_comes_to_the_same_as_another_may_change(tmp_path: Path) -> None:
    """Rows of a stack take no notice of each other, so that their number is as free as a device."""
    folder = make(tmp_path, text(executor={"name": "stacked", "most": 2}), "checkpoint.every_local_steps=32")
    go_on(folder, "executor.most=3", "budget.local_steps=96")
    assert read(folder / "config.yaml")["executor"]["most"] == 3
    longer = make(tmp_path, text(executor={"name": "stacked", "most": 3}, budget={"local_steps": 96}), out="longer")
    assert (folder / "commits.jsonl").read_bytes() == (longer / "commits.jsonl").read_bytes()


def test_other_data_under_the_same_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one text of a few words " * 400, encoding="utf-8")
    data = {"name": "text", "path": str(corpus), "sequence_length": 8, "validation_samples": 4, "samples": None}
    sections = merge(NOISY, {"policy": {"name": "diloco"}})
    sections["data"] = {key: value for key, value in data.items() if value is not None}
    folder = make(tmp_path, to_yaml(sections), "checkpoint.every_local_steps=32")
    corpus.write_text("a text of some other words " * 400, encoding="utf-8")
    assert "error: data: is not what the run was trained on" in refused(folder, capsys)


def on_a_corpus(tmp_path: Path, words: str, place: str) -> tuple[str, Path]:
    """A configuration that trains on a file of these words, beside it; and that file."""
    corpus = tmp_path / place
    corpus.parent.mkdir(exist_ok=True)
    corpus.write_text(words * 400, encoding="utf-8")
    sections = merge(NOISY, {"policy": {"name": "diloco"}})
    sections["data"] = {"name": "text", "path": place, "sequence_length": 8, "validation_samples": 4}
    return to_yaml(sections), corpus


def test_data_may_have_moved_but_must_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, corpus = on_a_corpus(tmp_path, "one text of a few words ", "data/corpus.txt")
    whole, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events // 2])
    (tmp_path / "moved").mkdir()
    moved = corpus.rename(tmp_path / "moved/corpus.txt")
    _, other = on_a_corpus(tmp_path, "a text of some other words ", "other/corpus.txt")
    assert "error: data.path: '" in refused(folder, capsys)
    assert "error: data: is not what the run was trained on" in refused(folder, capsys, f"data.path={other}")
    assert "error: data.sequence_length: is 8 in this run" in refused(
        folder, capsys, f"data.path={moved}", "data.sequence_length=4"
    )
    monkeypatch.chdir(moved.parent)
    assert what_it_left(go_on(folder, "data.path=corpus.txt")) == what_it_left(whole)
    assert read(folder / "config.yaml")["data"]["path"] == str(moved)


def test_so_may_what_it_is_evaluated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = on_a_corpus(tmp_path, "one text of a few words ", "data/corpus.txt")
    _, text = on_a_corpus(tmp_path, "what to see ", "data/seen.txt")
    sections = yaml.safe_load(config)
    sections["evaluate"]["sets"] = {"seen": {"name": "text", "path": "data/seen.txt"}}
    config = to_yaml(sections)
    whole, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events // 2])
    moved = text.rename(tmp_path / "moved.txt")
    assert "error: evaluate.sets.seen.path: '" in refused(folder, capsys)
    text.write_text("what it may see now " * 400, encoding="utf-8")  # at the same place
    assert "error: data: is not what the run was trained on" in refused(folder, capsys)
    assert what_it_left(go_on(folder, f"evaluate.sets.seen.path={moved}")) == what_it_left(whole)


def test_what_becomes_of_the_env_file_meanwhile_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / "env.yaml"
    speeds = "num_regions: 2\nnetwork_bandwidths: [[9, 0.001], [0.001, 9]]\nworker_speeds: [[1, 0.7], [0.4, 0.9]]\n"
    env.write_text(speeds, encoding="utf-8")
    config = text("halos", cluster={"env": "env.yaml", "regions": []}, network={"bandwidth_gbps": None})
    whole, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events // 2])
    env.write_text(speeds.replace("0.7", "0.3"), encoding="utf-8")
    expected = what_it_left(whole)
    assert what_it_left(go_on(folder)) == expected
    env.unlink()
    assert what_it_left(go_on(folder)) == expected


def test_another_source_of_a_plugin_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "mine.py"
    shutil.copy(PLUGINS["halos_one_step_delay"], plugin)
    sections = merge({**NOISY, "policy": {}}, {"policy": {"name": "one_step_delay"}, "plugins": [str(plugin)]})
    folder = make(tmp_path, to_yaml(sections), "checkpoint.every_local_steps=32")
    plugin.write_text(plugin.read_text(encoding="utf-8") + "\n# another one\n", encoding="utf-8")
    assert "mine.py is sha256:" in refused(folder, capsys)


def test_a_plugin_may_have_moved_but_must_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, moved = tmp_path / "mine.py", tmp_path / "moved/yours.py"
    shutil.copy(PLUGINS["halos_one_step_delay"], plugin)
    config = to_yaml(merge({**NOISY, "policy": {}}, {"policy": {"name": "one_step_delay"}, "plugins": ["mine.py"]}))
    whole, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events // 2])
    moved.parent.mkdir()
    plugin.rename(moved)
    monkeypatch.chdir(moved.parent)
    assert f"error: plugin {plugin}: no such file" in refused(folder, capsys)
    found, expected = what_it_left(go_on(folder, "plugins=[yours.py]")), what_it_left(whole)
    assert {**found, "summary": None} == {**expected, "summary": None}  # which names the file


def test_another_version_of_halos_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("halos.plugins.registry.VERSION", "9.9")
    assert "error: halos is 9.9, but the run was made with" in refused(finished, capsys)


@pytest.mark.parametrize("name", ["updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl"])
def test_changed_records_are_refused(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(finished, folder)
    first, rest = (folder / name).read_text(encoding="utf-8").split("\n", 1)
    (folder / name).write_text(first.replace('"time"', '"tide"') + "\n" + rest, encoding="utf-8")
    assert f"{name} is not what this run wrote" in refused(folder, capsys)


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, text(), *NONE)
    assert "holds no checkpoint: none was asked for" in refused(folder, capsys)
    assert main(["--resume", str(tmp_path / "nowhere")]) == 2
    assert "is no run folder" in capsys.readouterr().err


# Two runs in one folder


def test_a_folder_in_use_is_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from halos.run.folder import locked

    folder = tmp_path / "used"
    shutil.copytree(finished, folder)
    with locked(folder):
        assert "is in use: another run is writing there" in refused(folder, capsys)
    empty = tmp_path / "empty"
    empty.mkdir()
    with locked(empty):  # somebody else is about to begin there
        (tmp_path / "c.yaml").write_text(text(), encoding="utf-8")
        assert main([str(tmp_path / "c.yaml"), f"out={empty}"]) == 2
        assert "is in use" in capsys.readouterr().err
    assert empty.is_dir()


# SIGKILL


def fork(work: Callable[[], Any], prepare: Callable[[pytest.MonkeyPatch], None]) -> bool:
    """Do `work` in a copy of this process; whether SIGKILL ended it."""
    child = os.fork()
    if not child:
        try:
            prepare(pytest.MonkeyPatch())
            work()
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """`function`, but its call `number` (from 1) kills the process."""
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return die() if calls == number else function(*arguments, **named)

    return counted


def after_first(function: Callable[..., Any], others: Callable[..., Any]) -> Callable[..., Any]:
    """`function` at its first call, then `others`."""
    calls = iter([function])
    return lambda *arguments: next(calls, others)(*arguments)


def kill_at_update(patch: pytest.MonkeyPatch, number: int) -> None:
    from halos.sim.jobs import Jobs

    patch.setattr(Jobs, "_end", at_call(Jobs._end, number))


def kill_in(place: str, number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Kill while a checkpoint is written: in the middle of its bytes, before or after it gets its name."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        from halos.resume import checkpoint

        if place == "training":
            kill_at_update(patch, number)
        elif place == "writing":
            write, save = checkpoint.Hashing.write, checkpoint.Checkpoint.save

            def second(*arguments: Any) -> Path:
                patch.setattr(checkpoint.Hashing, "write", at_call(write, number))
                return save(*arguments)

            patch.setattr(checkpoint.Checkpoint, "save", after_first(save, second))
        elif place == "renaming":
            patch.setattr("halos.resume.checkpoint.os.replace", at_call(os.replace, 2))
        else:
            patch.setattr(checkpoint, "_sync", at_call(checkpoint._sync, 2))

    return prepare


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What runs leave that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {name: what_it_left(make(folder, text(name), out=name)) for name in ("diloco", "halos")}


@pytest.mark.parametrize("name", ["diloco", "halos"])
@pytest.mark.parametrize(("place", "number"), [("training", 9), ("training", 13), ("writing", 1), ("writing", 20),
                                               ("renaming", 0), ("after renaming", 0)])  # fmt: skip
def test_a_run_killed_for_real_is_resumed(
    name: str, place: str, number: int, tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    folder = tmp_path / "run"
    work = lambda: make(tmp_path, text(name), "checkpoint.every_local_steps=16", "checkpoint.keep=2")  # noqa: E731
    assert fork(work, kill_in(place, number))
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert any(each.startswith("events-") for each in left)
    assert any(each.startswith(".part-") for each in left) == (place in ("writing", "renaming"))
    assert what_it_left(go_on(folder)) == undisturbed[name]
    assert len(list((folder / "checkpoints").iterdir())) == 2, "nothing is left of what was not finished"


@pytest.mark.long
def test_the_command_killed_and_resumed_is_the_command_undisturbed(tmp_path: Path) -> None:
    name = "async_local_sgd, shared links"
    # Killed by a plugin at its seventh update; in the resumed run, which tells it all again, it has done that already.
    (tmp_path / "killer.py").write_text(
        "import os, signal\nfrom halos import hookimpl\nheard = []\n\n"
        "@hookimpl\ndef on_update(update):\n    heard.append(1)\n"
        "    if len(heard) == 7 and os.environ.get('KILL'):\n        os.kill(os.getpid(), signal.SIGKILL)\n",
        encoding="utf-8",
    )
    (tmp_path / "c.yaml").write_text(text(name), encoding="utf-8")
    changes = ["checkpoint.every_local_steps=8", "--plugin", str(tmp_path / "killer.py")]

    def command(*arguments: str, kill: str = "") -> int:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "KILL": kill}
        done = [sys.executable, "-m", "halos.run", *arguments]
        return subprocess.run(done, cwd=tmp_path, env=environment, capture_output=True, timeout=120).returncode

    assert command("c.yaml", "out=a", *changes, kill="yes") == -signal.SIGKILL
    assert command("--resume", "a") == 0
    whole = make(tmp_path, text(name), out="whole")
    found, expected = what_it_left(tmp_path / "a"), what_it_left(whole)
    del found["summary"], expected["summary"]  # which says that the killer was there
    assert found == expected


def test_a_run_whose_name_looks_like_a_reference_goes_on_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text("diloco"), encoding="utf-8")
    for name in (r"\${a}", "007"):
        assert main(["c.yaml", f"name={name}", "checkpoint.every_local_steps=4"]) == 0
    for folder in (Path("runs/${a}"), Path("runs/007")):
        steps = read(folder / "config.yaml")["budget"]["local_steps"]
        assert main(["--resume", str(folder), f"budget.local_steps={2 * steps}"]) == 0
        folder.rename(f"{folder}b")
        assert main(["--resume", f"{folder}b", f"budget.local_steps={3 * steps}"]) == 0
        assert main([f"{folder}b/config.yaml", "--overwrite"]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["${a}b", "007b"]
