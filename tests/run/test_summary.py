"""What a run's summary says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halos.errors import Diverged, Lost, UserError
from halos.run.cli import main
from halos.run.summary import ended_by
from halos.sim.clock import Deadlock
from tests.faulty import crash
from tests.run.left import plugin, summary, written


def test_the_summary_and_the_trace_say_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, network={"bandwidth_gbps": 1000.0}, faults=crash(1, 3.0, 2.0), budget={"local_steps": 8})
    assert main([config, "observers.progress=false"]) == 0
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    # Rounds until 2, 4 and 6 s. Worker 1 crashes in the second, and is down at the start of the third.
    assert summary["simulated_seconds"] == pytest.approx(6.0, abs=1e-6)
    assert summary["steps"] == {"trained": 8, "committed": 8, "dropped": 0, "in_flight": 0, "lost": 4}
    assert summary["lost"] == {"jobs": 2, "messages": 0}
    assert summary["goodput"] == pytest.approx(8 / 12)
    shares = [[each[key] for key in ("compute", "transfer", "idle", "down")] for each in summary["workers"]]
    assert shares[0] == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert shares[1] == pytest.approx([3 / 6, 0, 1 / 6, 2 / 6], abs=1e-6)  # of the three, one for nothing
    assert summary["parameters"] == 2
    events = json.loads((tmp_path / "runs/run/trace.json").read_text())["traceEvents"]
    assert [(each["ts"], each["dur"]) for each in events if each["name"] == "down"] == [(3_000_000, 2_000_000)]
    # The second began at 2 s; the third, of a worker that is down, ended as it began.
    assert [(each["ts"], each["dur"]) for each in events if each["name"] == "lost"] == [
        (2_000_000, 1_000_000),
        (4_000_000, 0),
    ]
    said = " ".join(capsys.readouterr().out.split())
    assert "8 committed, 4 lost" in said and "goodput 66.7%" in said and "2 jobs, 0 messages" in said


def test_what_the_end_of_a_run_cuts_off_counts_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same until 5 s: worker 0 has done the first half of its third job; of 10 s, 6 were committed."""
    monkeypatch.chdir(tmp_path)
    budget = {"simulated_hours": 5.0 / 3600.0, "local_steps": None}
    config = written(tmp_path, network={"bandwidth_gbps": 1000.0}, faults=crash(1, 3.0, 2.0), budget=budget)
    assert main([config, "observers.progress=false"]) == 0
    found = summary(tmp_path / "runs/run")
    assert (found["simulated_seconds"], found["steps"]["committed"]) == (pytest.approx(5.0), 6)
    assert (found["goodput"], found["expected_goodput"]) == (pytest.approx(0.6), pytest.approx(0.7))


def test_a_policys_own_numbers_are_in_the_summary(command, tiny_yaml, tmp_path, caplog):
    files = {"c.yaml": tiny_yaml(policy={"name": "mine"})}
    for name, more in (("good", "{'lost': 3}"), ("bad", "1 / 0")):
        files[f"{name}.py"] = plugin("pass", f"    def report(self):\n        return {more}\n")
        assert command("c.yaml", "--plugin", f"{name}.py", f"name={name}", files=files).code == 0
    assert summary(tmp_path / "runs" / "good")["policy_report"] == {"lost": 3}
    assert summary(tmp_path / "runs" / "bad")["policy_report"] is None
    assert "Mine.report() failed: ZeroDivisionError: division by zero" in caplog.text


OBSERVERS = """
from dataclasses import dataclass
from halos import hookimpl

@dataclass
class Counter:
    by: int = 1

    @hookimpl
    def on_start(self, experiment): self.count = 0

    @hookimpl
    def on_commit(self, commit): self.count += self.by

    def summary(self): return {"commits": self.count, "none": float("nan")}

class Silent(Counter):
    summary = None

class Failing(Counter):
    def summary(self): return {"a": self.count / 0}

class Strange(Counter):
    def summary(self): return {"a": {self.count}}

@hookimpl
def register_observers(register):
    for each in (Counter, Silent, Failing, Strange):
        register(each.__name__.lower(), each)
"""


def test_so_are_those_of_observers_by_name(command, tiny_yaml, tmp_path, caplog):
    """Two rounds are two commits; one that counts by five has counted ten."""
    extra = {"strange": True, "failing": {}, "silent": {}, "counter": {"by": 5}}
    files = {"c.yaml": tiny_yaml(observers={"extra": extra}), "counters.py": OBSERVERS}
    assert command("c.yaml", "--plugin", "counters.py", files=files).code == 0
    found = summary(tmp_path / "runs/run")["observers"]
    assert list(found.items()) == [("strange", None), ("failing", None), ("counter", {"commits": 10, "none": None})]
    assert "observers.failing: Failing.summary() failed: ZeroDivisionError: division by zero" in caplog.text
    assert "observers.strange: Strange.summary() failed: TypeError: Object of type set is not JSON" in caplog.text


def test_what_a_policy_reports_that_json_cannot_hold_is_not_its_end(command, tiny_yaml, tmp_path, caplog):
    files = {"c.yaml": tiny_yaml(policy={"name": "mine"})}
    files["set.py"] = plugin("pass", "    def report(self):\n        return {'lost': {3}}\n")
    assert command("c.yaml", "--plugin", "set.py", files=files).code == 0
    assert summary(tmp_path / "runs/run")["policy_report"] is None
    assert "policy_report: Mine.report() failed: TypeError: Object of type set is not JSON" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Diverged("the loss became nan"), "diverged: the loss became nan"),
        (Deadlock("nothing is left to happen"), "failed: nothing is left to happen"),
        (Lost("job 3", 12.5, "it rained"), "failed: job 3 lost at 12.5 s: it rained"),
        (UserError("no such file"), "failed: no such file"),
        (IndexError("list index out of range"), "failed: IndexError: list index out of range"),
    ],
)
def test_a_run_that_did_not_finish_says_why_and_of_a_bug_which_kind(error: BaseException, said: str) -> None:
    assert ended_by(error) == said
