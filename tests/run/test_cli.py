"""A run from its configuration to its summary: what it writes, how it ends, and that it does the same again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.config.builder import to_sections
from halos.config.config import load_config
from halos.config.layers import read
from halos.config.yaml_text import to_yaml
from halos.errors import UserError
from halos.run.lifecycle import run
from halos.testing import tiny
from halos.training.inline import Inline

ROOT = Path(__file__).parents[2]
RECORDS = ("updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl")


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n"), "whole lines only"
    return [json.loads(line) for line in text.splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    """What `summary.json` says; wherever steps went, they add up, and to what the updates say."""
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    steps = found["steps"]
    assert steps["trained"] == steps["committed"] + steps["dropped"] + steps["in_flight"]
    if (folder / "updates.jsonl").exists():
        assert steps["trained"] == sum(update["steps"] for update in lines(folder / "updates.jsonl"))
    assert found["local_steps"] == steps["committed"]
    return found


def plugin(body: str, more: str = "") -> str:
    """A policy `mine` with this body, as a single file."""
    text = "\n".join("        " + line for line in body.splitlines())
    return (
        "from dataclasses import dataclass\nfrom halos import all_of\nfrom halos.sim.clock import Event\n"
        "from halos.hooks import hookimpl\n\n"
        f"@dataclass\nclass Mine:\n    async def run(self, sim):\n{text}\n{more}\n"
        "@hookimpl\ndef register_sync_policies(register): register('mine', Mine)\n"
    )


def python(*arguments: str, folder: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


# The run folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of one run of the tiny config, all observers but the progress line on."""
    folder = tmp_path_factory.mktemp("whole")
    changes = {"evaluate": {"every_local_steps": 4}, "observers": {"results": True, "progress": False}}
    (folder / "c.yaml").write_text(to_yaml(tiny(**changes)))
    run(*load_config(str(folder / "c.yaml"), [f"out={folder / 'run'}"]))
    return folder / "run"


def test_the_run_folder_holds_what_it_should(folder):
    names = {path.name for path in folder.iterdir()}
    (events,) = [name for name in names if name.startswith("events.out.tfevents")]
    assert names == {"config.yaml", *RECORDS, "summary.json", "model.pt", "results.pt", "trace.json", events}
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]


def test_the_config_is_written_first_and_is_the_resolved_one(folder):
    written = folder / "config.yaml"
    assert written.stat().st_mtime_ns == min(path.stat().st_mtime_ns for path in folder.iterdir())
    assert read(written)["data"]["wrap"] is True  # a default, written out
    assert to_sections(*load_config(str(written))) == read(written)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("updates", "time worker region steps start_time start_version first_sample end_sample lr_step losses server"),
        ("transfers", "start_time time src dst bytes kind worker server"),
        ("commits", "time version server kind local_steps contributions"),
        ("evaluations", "time version local_steps trained_steps tokens loss set of"),
    ],
)
def test_every_record_has_exactly_the_documented_keys(folder, name, keys):
    records = lines(folder / f"{name}.jsonl")
    assert records
    assert all(list(record) == keys.split() for record in records)


def test_the_records_tell_the_story_of_two_rounds_of_two_workers(folder):
    # Two workers, 2 steps of 1 s per round, free communication, 8 steps in all: two rounds, ending at 2 s and 4 s.
    updates = lines(folder / "updates.jsonl")
    assert [(u["worker"], u["start_time"], u["time"], u["first_sample"], u["end_sample"]) for u in updates] == [
        (0, 0.0, 2.0, 0, 2), (1, 0.0, 2.0, 2, 4), (0, 2.0, 4.0, 4, 6), (1, 2.0, 4.0, 6, 8),
    ]  # fmt: skip
    commits = lines(folder / "commits.jsonl")
    assert [(c["time"], c["version"], c["local_steps"]) for c in commits] == [(2.0, 1, 4), (4.0, 2, 8)]
    assert commits[1]["contributions"] == [
        {"workers": [worker], "steps": 2, "from_version": 1, "staleness": 0, "drift": 0.0} for worker in (0, 1)
    ]
    # Evaluated at step 0, at the interval, at the end. The loss is ½ Σ (θ − 1)² = (1 − θ)², each step takes a tenth.
    evaluations = lines(folder / "evaluations.jsonl")
    assert [(e["local_steps"], e["tokens"]) for e in evaluations] == [(0, 0), (4, 32), (8, 64)]
    assert [e["loss"] for e in evaluations] == pytest.approx([1.0, 0.9**4, 0.9**8])


def test_the_summary_has_the_documented_keys(folder):
    found = summary(folder)
    assert set(found) == {
        "name", "policy", "seed", "simulated_seconds", "wall_seconds", "local_steps", "tokens", "commits", "updates",
        "final_train_loss", "final_validation_loss", "bytes", "workers", "steps", "data", "staleness", "drift",
        "goodput", "policy_report", "versions", "finished", "lost",
    }  # fmt: skip
    assert (found["name"], found["policy"], found["seed"], found["finished"]) == ("run", "diloco", 1234, True)
    assert (found["simulated_seconds"], found["tokens"], found["commits"], found["updates"]) == (4.0, 64, 2, 4)
    assert found["steps"] == {"trained": 8, "committed": 8, "dropped": 0, "in_flight": 0, "lost": 0}
    assert found["workers"][1] == {
        "worker": 1, "region": 0, "compute": 1.0, "transfer": 0.0, "idle": 0.0, "down": 0.0, "local_steps": 4,
    }  # fmt: skip
    assert set(found["data"]) == {"hash", "samples", "tokens"} and found["data"]["tokens"] == 64 * 8
    assert set(found["versions"]) >= {"halos", "python", "torch"}
    assert found["final_validation_loss"] == pytest.approx(0.9**8)


def test_the_model_is_a_state_dict_of_the_final_parameters(folder):
    state = torch.load(folder / "model.pt", weights_only=True)
    assert list(state) == ["theta"]
    assert state["theta"].tolist() == pytest.approx([1 - 0.9**4] * 2)


# The command line


def test_a_run_ends_with_a_table_and_code_0(command, tiny_yaml, tmp_path):
    got = command(
        "c.yaml", "name=mine", "cluster.regions=[{name: '[here]', workers: [1]}]", files={"c.yaml": tiny_yaml()}
    )
    assert (got.code, got.err) == (0, "")
    for part in ("mine", "diloco", "finished", "[here]", "validation loss", "runs/mine"):
        assert part in got.out
    assert summary(tmp_path / "runs" / "mine")["local_steps"] == 8


def test_the_table_has_the_regions_that_ran_though_their_file_is_gone(command, tiny_yaml, tmp_path):
    files = {
        "c.yaml": tiny_yaml(cluster={"env": "env.yaml", "regions": []}),
        "env.yaml": "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n",
        "mover.py": "import os\nfrom halos import hookimpl\n\n"
        "@hookimpl\ndef on_finish(summary): os.remove('env.yaml')\n",
    }
    got = command("c.yaml", "--plugin", "mover.py", files=files)
    assert (got.code, got.err) == (0, "")
    assert not (tmp_path / "env.yaml").exists()
    assert "region-0" in got.out and "region-1" in got.out


def test_a_folder_in_use_is_refused_and_left_alone(command, tiny_yaml, tmp_path):
    assert command("c.yaml", files={"c.yaml": tiny_yaml()}).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "run").iterdir()}
    got = command("c.yaml", "seed=7")
    assert (got.code, got.made) == (2, set())
    assert (
        got.err
        == "error: out: runs/run exists already and is not empty; choose another name=… or out=…, or delete it\n"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "runs" / "run").iterdir()} == before


def test_an_empty_folder_is_used(command, tiny_yaml, tmp_path):
    (tmp_path / "here").mkdir()
    assert command("c.yaml", "out=here", files={"c.yaml": tiny_yaml()}).code == 0
    assert (tmp_path / "here" / "summary.json").exists()


def test_show_config_shows_what_would_run_and_runs_nothing(command, tiny_yaml, tmp_path):
    got = command("c.yaml", "policy.outer.lr=0.5", "--show-config", files={"c.yaml": tiny_yaml()})
    assert (got.code, got.err, got.made) == (0, "", set())
    (tmp_path / "shown.yaml").write_text(got.out)
    shown = read(tmp_path / "shown.yaml")
    assert shown["policy"] == {"name": "diloco", "outer": {"name": "sgd", "lr": 0.5}}
    assert command("shown.yaml", "--show-config").out == got.out


def test_help_names_every_option(command):
    got = command("--help")
    assert (got.code, got.err) == (0, "")
    for part in ("CONFIG", "key=value", "--plugin FILE|MODULE", "--list-plugins", "--show-config", "--help"):
        assert part in got.out


def test_options_may_stand_anywhere(command, tiny_yaml):
    files = {"c.yaml": tiny_yaml(), "w.py": plugin("pass")}
    shown = command("c.yaml", "--plugin", "w.py", "seed=7", "--show-config", "name=x", files=files)
    assert shown.code == 0 and "seed: 7" in shown.out and "name: x" in shown.out


def test_without_arguments_the_command_says_what_to_try(tmp_path):
    got = python("-m", "halos.run", folder=tmp_path)
    assert (got.returncode, got.stdout) == (2, "")
    assert got.stderr == "error: no configuration given; try: python -m halos.run configs/quickstart.yaml\n"


# How a run ends


def test_a_policy_that_returns_early_ends_the_run_cleanly(command, tiny_yaml, tmp_path):
    body = "update = await sim.train(sim.workers[0], sim.params)\nsim.commit(update.params, [update])"
    got = command("c.yaml", "--plugin", "m.py", "policy=mine", files={"c.yaml": tiny_yaml(), "m.py": plugin(body)})
    found = summary(tmp_path / "runs" / "run")
    assert (got.code, found["finished"], found["local_steps"]) == (0, True, 2)


def test_a_loss_that_is_no_number_stops_the_run_and_names_worker_step_and_time(command, tiny_yaml, tmp_path):
    got = command("c.yaml", "train.optimizer.lr=1e15", "observers.trace=true", files={"c.yaml": tiny_yaml()})
    # Each step the distance grows 10¹⁵-fold; its square leaves fp32 (10³⁸) in the second round, which begins at 2 s.
    said = "training loss became inf: worker 0, local step 1 of 2 in the job started at 2 simulated seconds"
    assert got.code == 1
    assert got.err.startswith(f"stopped: {said}") and got.err.endswith("what was recorded until then is kept\n")
    assert got.err.count("\n") == 1
    folder = tmp_path / "runs" / "run"
    assert summary(folder)["finished"].startswith(f"failed: {said}")
    assert [len(lines(folder / name)) for name in RECORDS] == [2, 1, 1, 1]
    assert (folder / "trace.json").exists() and not (folder / "model.pt").exists()


def test_a_policy_that_raises_shows_its_own_frame_with_code_1(tmp_path, tiny_yaml):
    body = "updates = await all_of([sim.train(w, sim.params) for w in sim.workers])\nself.merge(updates)"
    more = "    def merge(self, updates):\n        return updates[2]\n"
    (tmp_path / "mine.py").write_text(plugin(body, more))
    (tmp_path / "c.yaml").write_text(tiny_yaml(policy={"name": "mine"}))
    got = python("-m", "halos.run", "c.yaml", "--plugin", "mine.py", folder=tmp_path)
    assert (got.returncode, got.stdout) == (1, "")
    tail = [line.strip() for line in got.stderr.splitlines()[-6:]]
    assert tail[-1] == "IndexError: list index out of range"
    assert f'File "{tmp_path}/mine.py", line 12, in merge' in tail  # on top: Python prints the innermost frame last
    assert f'File "{tmp_path}/mine.py", line 10, in run' in got.stderr
    found = summary(tmp_path / "runs" / "run")
    assert found["finished"] == "failed: IndexError: list index out of range"
    assert found["steps"] == {"trained": 4, "committed": 0, "dropped": 0, "in_flight": 4, "lost": 0}


def test_a_policy_that_waits_for_nothing_is_named_with_file_and_line(command, tiny_yaml, tmp_path):
    files = {
        "c.yaml": tiny_yaml(policy={"name": "mine"}),
        "mine.py": plugin("await sim.sleep(3)\nawait Event(sim.clock)"),
    }
    got = command("c.yaml", "--plugin", "mine.py", files=files)
    stuck = "nothing is left to happen at 3 s, but 1 process(es) still wait: Mine.run (mine.py:10)"
    assert got.code == 1
    assert got.err.replace(f"{tmp_path}/", "") == f"stopped: the policy is stuck: {stuck}\n"
    assert summary(tmp_path / "runs" / "run")["finished"].startswith("failed: nothing is left to happen at 3 s")


WATCH = """
from halos.errors import UserError
from halos.hooks import hookimpl

@hookimpl
def on_{event}({record}):
    raise {error}
"""


def test_an_interrupted_run_keeps_what_it_recorded(command, tiny_yaml, tmp_path):
    watch = WATCH.format(event="commit", record="commit", error="KeyboardInterrupt")
    got = command("c.yaml", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert (got.code, got.err) == (130, "interrupted; what was recorded until then is kept\n")
    folder = tmp_path / "runs" / "run"
    assert summary(folder)["finished"] == "interrupted"
    assert [len(lines(folder / name)) for name in RECORDS] == [2, 1, 1, 1]


def test_so_does_one_interrupted_before_its_policy_began(command, tiny_yaml, tmp_path):
    watch = WATCH.format(event="evaluate", record="evaluation", error="KeyboardInterrupt")
    got = command("c.yaml", "policy=halos", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert got.code == 130
    found = summary(tmp_path / "runs" / "run")
    assert (found["finished"], found["policy_report"]) == ("interrupted", None)


def heeds_ctrl_c() -> None:
    """What a shell starts in the background ignores it, and so would whatever that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_running_command_with_130(tmp_path, tiny_yaml):
    (tmp_path / "c.yaml").write_text(tiny_yaml(observers={"progress": True}))
    command = [sys.executable, "-m", "halos.run", "c.yaml", "budget.local_steps=1e12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c
    )
    commits = tmp_path / "runs" / "run" / "commits.jsonl"
    try:
        deadline = time.monotonic() + 60
        while not (commits.exists() and commits.stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.endswith("interrupted; what was recorded until then is kept\n") and "Traceback" not in err
    found = summary(commits.parent)  # and every line of the updates is whole
    assert found["finished"] == "interrupted"
    assert lines(commits)[-1]["local_steps"] == found["local_steps"] > 0


def test_an_observer_that_cannot_start_leaves_no_folder(command, tiny_yaml):
    watch = WATCH.format(event="start", record="experiment", error="UserError('no printer')")
    got = command("c.yaml", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert (got.code, got.err, got.made) == (2, "error: no printer\n", set())


def test_nor_does_one_with_a_bug(command, tiny_yaml, tmp_path):
    watch = WATCH.format(event="start", record="experiment", error="ValueError('bug')")
    with pytest.raises(ValueError, match="bug"):
        command("c.yaml", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert not (tmp_path / "runs").exists()


def test_a_mistake_seen_only_during_the_run_is_one_line_and_in_the_summary(command, tiny_yaml, tmp_path):
    got = command("c.yaml", "data.wrap=false", "data.samples=10", files={"c.yaml": tiny_yaml()})
    said = "data.wrap: false, but shard 0 has 2 samples and samples 2 to 2 were asked for; wrap: true starts over"
    assert got.code == 2 and got.err.startswith(f"error: {said}") and got.err.count("\n") == 1
    assert summary(tmp_path / "runs" / "run")["finished"].startswith(f"failed: {said}")


def test_a_folder_that_was_there_stays_but_empty(command, tiny_yaml, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    watch = WATCH.format(event="start", record="experiment", error="UserError('no printer')")
    got = command("c.yaml", "out=deep/er", "--plugin", "watch.py", files={"c.yaml": tiny_yaml(), "watch.py": watch})
    assert (got.code, got.made) == (2, set())
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "er"]


def test_a_config_that_cannot_be_written_leaves_no_folder(command, tiny_yaml, monkeypatch):
    command("c.yaml", "--show-config", files={"c.yaml": tiny_yaml()})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    got = command("c.yaml")
    assert (got.code, got.made) == (2, set())
    assert got.err == "error: out: runs/run/config.yaml cannot be written: No space left on device\n"


def test_the_summary_is_there_even_if_another_observer_cannot_finish(command, tiny_yaml, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise UserError("trace.json cannot be written: No space left on device")

    monkeypatch.setattr("halos.observers.trace._slices", full)
    got = command("c.yaml", "observers.trace=true", files={"c.yaml": tiny_yaml()})
    assert (got.code, got.err) == (2, "error: trace.json cannot be written: No space left on device\n")
    assert summary(tmp_path / "runs" / "run")["finished"] is True


def test_what_first_went_wrong_is_not_hidden_by_what_goes_wrong_afterwards(command, tiny_yaml, caplog):
    watch = WATCH.format(event="finish", record="summary", error="OSError('disk full')")
    files = {"c.yaml": tiny_yaml(), "watch.py": watch}
    got = command("c.yaml", "train.optimizer.lr=1e15", "--plugin", "watch.py", files=files)
    assert got.code == 1 and "stopped: training loss became inf" in got.err
    assert "the end of the run could not be recorded: disk full" in caplog.text


def test_a_policys_own_numbers_are_in_the_summary(command, tiny_yaml, tmp_path, caplog):
    files = {"c.yaml": tiny_yaml(policy={"name": "mine"})}
    for name, more in (("good", "{'lost': 3}"), ("bad", "1 / 0")):
        files[f"{name}.py"] = plugin("pass", f"    def report(self):\n        return {more}\n")
        assert command("c.yaml", "--plugin", f"{name}.py", f"name={name}", files=files).code == 0
    assert summary(tmp_path / "runs" / "good")["policy_report"] == {"lost": 3}
    assert summary(tmp_path / "runs" / "bad")["policy_report"] is None
    assert "Mine.report() failed: ZeroDivisionError: division by zero" in caplog.text


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ("name=fine", nullcontext()),
        ("train.optimizer.lr=1e30", nullcontext()),  # diverges
        ("budget.target_loss=1", nullcontext()),  # refused, after the data were opened
    ],
    ids=["finished", "failed", "refused"],
)
def test_the_executor_is_closed_however_the_run_ends(command, tiny_yaml, monkeypatch, change, ends):
    closed = []
    monkeypatch.setattr(Inline, "close", lambda self: closed.append(self))
    with ends:
        command(
            "c.yaml", change, "data.validation_samples=0", "evaluate.every_local_steps=2", files={"c.yaml": tiny_yaml()}
        )
    assert len(closed) == 1


def test_a_run_can_be_started_from_python(tmp_path, tiny_yaml):
    (tmp_path / "c.yaml").write_text(tiny_yaml())
    config, plugins = load_config(str(tmp_path / "c.yaml"), [f"out={tmp_path}/run"])
    returned, _ = run(config, plugins)
    assert summary(tmp_path / "run") == json.loads(json.dumps(returned))


# The same again


NEOX = {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2}
SLOW = {"regions": [{"workers": [1.0, 0.5]}, {"workers": [0.7]}], "step_time_ms": 100.0}
POLICIES = {
    "diloco": {"name": "diloco"},
    "async_local_sgd": {"name": "async_local_sgd", "grace_seconds": 0.1},
    "halos": {"name": "halos", "local_updates": 2},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_config_does_the_same_bit_for_bit_and_another_seed_does_not(command, tiny_yaml, tmp_path, policy):
    text = tiny_yaml(
        cluster=SLOW, model=NEOX, network={"bandwidth_gbps": 0.01}, policy=POLICIES[policy],
        steps={"name": "by_speed", "base": 3}, budget={"local_steps": 40}, evaluate={"every_local_steps": 20},
        train={"batch_size": 2, "optimizer": {"name": "adamw", "lr": 1e-3}, "clip": 1.0},
    )  # fmt: skip
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        assert command("c.yaml", f"name={name}", f"seed={seed}", files={"c.yaml": text}).code == 0
    runs = tmp_path / "runs"
    assert all((runs / "one" / each).read_bytes() == (runs / "two" / each).read_bytes() for each in RECORDS)
    one, two, other = (torch.load(runs / name / "model.pt", weights_only=True) for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].dim() == 2)
    assert (runs / "one" / "updates.jsonl").read_bytes() != (runs / "other" / "updates.jsonl").read_bytes()  # losses
    first, again = summary(runs / "one"), summary(runs / "two")
    different = {key for key in first if first[key] != again[key]}
    assert different <= {"name", "wall_seconds"}
    assert first["steps"]["committed"] >= 40


@pytest.mark.parametrize("workers", [1, 1000])
@pytest.mark.parametrize("policy", POLICIES)
def test_one_worker_and_a_thousand_are_timed_to_the_end(command, tiny_yaml, tmp_path, policy, workers):
    cluster = {"regions": [{"workers": [1.0] * workers}]}
    text = tiny_yaml(
        cluster=cluster, policy=POLICIES[policy], executor={"name": "timing"}, network={"bandwidth_gbps": 1}
    )
    got = command("c.yaml", f"budget.local_steps={8 * workers}", files={"c.yaml": text})
    assert (got.code, got.err) == (0, "")
    found = summary(tmp_path / "runs" / "run")
    assert found["steps"]["committed"] >= 8 * workers and len(found["workers"]) == workers
    assert not (tmp_path / "runs" / "run" / "model.pt").exists()


# What is left without the policies


def test_without_the_files_in_policies_everything_else_still_works(tmp_path):
    shutil.copytree(ROOT / "halos", tmp_path / "halos", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "halos" / "policies").iterdir():
        file.unlink()
    got = python("-m", "halos.run", "--list-plugins", folder=tmp_path, path=tmp_path)
    assert (got.returncode, got.stderr) == (0, "")
    rows = [re.split(r" {2,}", line.strip()) for line in got.stdout.splitlines()]
    kinds = {row[0] for row in rows if row[2] == "halos"}  # not of packages that are installed
    assert "policy" not in kinds and {"merge rule", "network model", "executor"} <= kinds
    # and a policy from elsewhere runs on what is left
    (tmp_path / "mine.py").write_text(plugin("pass"))
    source = (
        "import halos.run, halos.testing as t; print(t.record(t.tiny(policy={'name': 'mine'}), ['mine.py']).commits)"
    )
    got = python("-c", source, folder=tmp_path, path=tmp_path)
    assert (got.returncode, got.stdout) == (0, "[]\n"), got.stderr
