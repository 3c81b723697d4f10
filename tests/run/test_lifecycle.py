"""How a run begins and ends, and what it leaves however it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from halos.config.config import load_config
from halos.errors import UserError
from halos.run.cli import main
from halos.run.lifecycle import run
from halos.training.inline import Inline
from tests.faulty import HERE, crash
from tests.run.left import RECORDS, ROOT, WATCH, lines, plugin, python, summary, written


@pytest.mark.parametrize("beside", [False, True])
def test_a_policy_that_does_not_go_on_ends_the_run_with_one_line(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = written(
        tmp_path,
        policy={"name": "stubborn", "beside": beside},
        network={"bandwidth_gbps": 1.0},
        faults=crash(1, 3.0, 1.0),
    )
    assert main([config, "--plugin", HERE, "observers.progress=false"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stopped: policy stubborn does not go on without what is lost: job 3 of worker 1 lost at 3 s: worker 1 was down"
    )
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    assert summary["finished"] == "failed: job 3 of worker 1 lost at 3 s: worker 1 was down"


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
    assert summary(folder)["finished"].startswith(f"diverged: {said}")
    assert [len(lines(folder / name)) for name in RECORDS] == [2, 1, 1, 1]
    assert (folder / "trace.json").exists() and not (folder / "model.pt").exists()


def test_a_run_in_fp16_that_takes_no_step_has_learned_nothing(command, tiny_yaml, tmp_path, caplog):
    caplog.set_level("INFO", logger="halos")
    fp16 = ["train.precision=fp16", "train.optimizer.lr=0.1"]
    files = {"c.yaml": tiny_yaml()}
    got = command("c.yaml", "--plugin", str(ROOT / "tests/broken_plugins.py"), "model=Infinite", *fp16, files=files)
    assert got.code == 1
    assert got.err == (
        "stopped: fp16's loss scaling skipped all of the 8 local steps, so nothing was learned; train.precision=bf16"
        " has no such limits\n"
    )
    assert summary(tmp_path / "runs" / "run")["skipped_steps"] == 8
    got = command("c.yaml", *fp16, "name=good")
    assert got.code == 0
    assert [message for message in caplog.messages if "fp16" in message] == [
        "fp16's loss scaling skipped 8 local steps", "fp16's loss scaling skipped 0 local steps"
    ]  # fmt: skip
    assert summary(tmp_path / "runs" / "good")["skipped_steps"] == 0
    command("c.yaml", "name=fp32")
    assert summary(tmp_path / "runs" / "fp32")["skipped_steps"] is None


def test_a_policy_that_raises_shows_its_own_frame_with_code_1(tmp_path, tiny_yaml):
    body = "updates = await all_of([sim.train(w, sim.params) for w in sim.workers])\nself.merge(updates)"
    more = "    def merge(self, updates):\n        return updates[2]\n"
    (tmp_path / "mine.py").write_text(plugin(body, more))
    (tmp_path / "c.yaml").write_text(tiny_yaml(policy={"name": "mine"}, executor={"name": "timing"}))
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


@pytest.mark.long
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


def test_the_summary_is_there_even_if_another_observer_cannot_finish(command, tiny_yaml, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise UserError("trace.json cannot be written: No space left on device")

    monkeypatch.setattr("halos.observers.trace.observer.of_worker", full)
    got = command("c.yaml", "observers.trace=true", files={"c.yaml": tiny_yaml()})
    assert (got.code, got.err) == (2, "error: trace.json cannot be written: No space left on device\n")
    assert summary(tmp_path / "runs" / "run")["finished"] is True


def test_what_first_went_wrong_is_not_hidden_by_what_goes_wrong_afterwards(command, tiny_yaml, caplog):
    watch = WATCH.format(event="finish", record="summary", error="OSError('disk full')")
    files = {"c.yaml": tiny_yaml(), "watch.py": watch}
    got = command("c.yaml", "train.optimizer.lr=1e15", "--plugin", "watch.py", files=files)
    assert got.code == 1 and "stopped: training loss became inf" in got.err
    assert "the end of the run could not be recorded: disk full" in caplog.text


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
