"""The progress line."""

import io
import sys

import pytest

from halos.observers.experiment import Experiment
from halos.observers.progress import Progress
from halos.sim.limits import BudgetOptions
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, Update
from halos.world.cluster import Cluster, Region, Worker
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKER = Worker(0, 0, 1.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def start(monkeypatch, stderr=None, **budget):
    """A progress observer that writes to `stderr`, a StringIO."""
    stderr = stderr or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    cluster = Cluster((Region(0, "here", (WORKER,)),), (WORKER,), 1.0, 0.0)
    options = BudgetOptions(**(budget or {"local_steps": 4000}))
    limits = options.steps(1000), options.seconds
    observer = Progress()
    trained = options.trained(1000)
    observer.on_start(
        Experiment("run", None, {}, "diloco", 1, cluster, *limits, 1000, 4, 4, True, {}, trained_steps=trained)
    )
    return observer, stderr


def update(time, loss=3.5):
    return Update(0, 0, 0, PARAMS, PARAMS, 8, 0.0, time, 0, (0, 64), 0, (loss,), (8,), (0.0, time))


def commit(time, local_steps, loss=3.5):
    return Commit(time, 1, "global", "update", local_steps, (share(update(time, loss)),), PARAMS)


def test_the_line_has_time_steps_tokens_losses_and_what_is_left(monkeypatch, clock):
    observer, stderr = start(monkeypatch)
    observer.on_commit(commit(4096.0, 1000))
    observer.on_evaluate(Evaluation(4096.0, 1, 1000, 1000, 10, 3.25, "validation"))
    clock[0] += 20
    observer.on_update(update(4100.0))
    assert stderr.getvalue() == (
        "run | simulated 1 h 08 min | 1,000/4,000 steps | 25 % | wall 1 min 00 s left | train 3.500 | val 3.250"
        " | 1.0M tokens\n"
    )


def test_of_a_budget_of_trained_steps_the_share_is_known(monkeypatch, clock):
    observer, stderr = start(monkeypatch, simulated_hours=100.0, trained_steps=32)
    observer.on_update(update(3600.0))  # 8 local steps, a quarter; of the time it is a hundredth
    observer.on_finish({"simulated_seconds": 3600.0})
    assert "| 0 steps | 25 % | " in stderr.getvalue()


def test_a_share_that_is_whole_on_paper_is_not_a_percent_less(monkeypatch, clock):
    observer, stderr = start(monkeypatch)
    observer.on_commit(commit(4096.0, 1160))  # of 4,000: 29 %, but 0.29 · 100 is a little less
    observer.on_finish({"simulated_seconds": 4096.0})
    assert "| 1,160/4,000 steps | 29 % |" in stderr.getvalue()


def lines(stderr):
    """What a terminal showed, one after another."""
    return [line.removeprefix("\x1b[2K").rstrip("\n") for line in stderr.getvalue().split("\r")[1:]]


def test_eighty_columns_have_room_for_the_losses_and_both_clocks(monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", "80")
    observer, stderr = start(monkeypatch, Terminal())
    observer._name = "a-run-of-some-longer-name"
    observer.on_commit(commit(4096.0, 1000))
    clock[0] += 20
    observer.on_evaluate(Evaluation(4096.0, 1, 1000, 1000, 10, 3.25, "validation"))
    assert lines(stderr)[-1] == "simulated 1 h 08 min | 25 % | wall 1 min 00 s left | train 3.500 | val 3.250"
    observer.on_evaluate(Evaluation(4096.0, 1, 1000, 1000, 10, 2.0, "german"))
    clock[0] += 20
    observer.on_finish({"simulated_seconds": 4096.0, "wall_seconds": 47.0})
    assert lines(stderr)[-1] == "simulated 1 h 08 min | 25 % | wall 47.0 s | train 3.500 | val 3.250"


def test_a_narrow_terminal_keeps_the_losses_longest_and_what_was_left_out_does_not_come_back(monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", "40")
    observer, stderr = start(monkeypatch, Terminal())
    assert lines(stderr) == ["simulated 0 s | 0 % | wall 0 s"]
    observer.on_commit(commit(4096.0, 1000))
    observer.on_evaluate(Evaluation(4096.0, 1, 1000, 1000, 10, 3.25, "validation"))
    clock[0] += 20
    observer.on_update(update(4096.0))
    assert lines(stderr)[-1] == "train 3.500 | val 3.250"
    clock[0] += 20
    observer.on_finish({"simulated_seconds": 9.0})  # there would be room again
    assert lines(stderr)[-1] == "train 3.500 | val 3.250"


def test_away_from_a_terminal_a_line_every_ten_seconds_and_no_control_characters(monkeypatch, clock):
    observer, stderr = start(monkeypatch)
    for number in range(1, 351):
        clock[0] += 0.1
        observer.on_update(update(float(number)))
        observer.on_commit(commit(float(number), number))
    observer.on_finish({"simulated_seconds": 350.0})
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 4  # after 10, 20, 30 s and at the end
    assert all(character.isprintable() for line in lines for character in line)
    assert lines[-1] == "run | simulated 5 min 50 s | 350/4,000 steps | 8 % | wall 35.0 s | train 3.500 | 350.0k tokens"


def test_a_terminal_sees_one_line_ten_times_a_second_within_its_width(monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", "40")
    observer, stderr = start(monkeypatch, Terminal())
    for number in range(1, 201):  # two seconds
        clock[0] += 0.01
        observer.on_update(update(float(number)))
        observer.on_commit(commit(float(number), number))
    observer.on_finish({"simulated_seconds": 200.0})
    drawn = stderr.getvalue().split("\r")
    assert 10 <= len(drawn) <= 23
    assert stderr.getvalue().count("\n") == 1
    assert stderr.getvalue().endswith("\n")
    for line in drawn[1:]:
        assert line.startswith("\x1b[2K")
        assert len(line.removeprefix("\x1b[2K").rstrip("\n")) <= 39


def test_many_records_cost_few_looks_at_the_clock(monkeypatch):
    observer, _ = start(monkeypatch)
    looks = []
    monkeypatch.setattr("time.monotonic", lambda: looks.append(1) or 1000.0)
    for _ in range(100_000):
        observer.on_update(UPDATE)
    assert len(looks) < 150


UPDATE = update(1.0)


def test_rare_records_are_each_shown(monkeypatch, clock):
    observer, stderr = start(monkeypatch)
    for _ in range(1000):
        observer.on_update(UPDATE)
    for number in range(20):  # now slowly: within a few dozen records every one is looked at again
        clock[0] += 11
        for _ in range(600 if number < 10 else 1):
            observer.on_update(update(float(number)))
    assert 10 <= len(stderr.getvalue().splitlines()) <= 21


def test_a_budget_of_hours_is_shown_by_its_share(monkeypatch, clock):
    observer, stderr = start(monkeypatch, simulated_hours=2.0)
    observer.on_commit(commit(1800.0, 1000))
    clock[0] += 15
    observer.on_update(update(1800.0))
    assert "| 1,000 steps | 25 % of 2 h 00 min |" in stderr.getvalue()
    assert "| wall 45.0 s left |" in stderr.getvalue()


def test_a_budget_of_a_target_loss_has_no_share(monkeypatch, clock):
    observer, stderr = start(monkeypatch, target_loss=2.0)
    observer.on_commit(commit(1800.0, 1000))
    clock[0] += 15
    observer.on_update(update(1800.0))
    assert stderr.getvalue() == "run | simulated 30 min 00 s | 1,000 steps | wall 15.0 s | train 3.500 | 1.0M tokens\n"


def test_a_watcher_who_leaves_does_not_end_the_run(monkeypatch, clock):
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    observer, _ = start(monkeypatch, Gone())
    clock[0] += 15
    observer.on_update(update(1.0))
    observer.on_finish({})
