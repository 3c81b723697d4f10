"""A run in Weights & Biases: what is logged offline is what the records say, and online the same is called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from halos_wandb import WandB
from halos_wandb.session import known

from halos import ConfigError
from halos.testing import main, tiny
from halos.testing.conformance import ObserverConformance

sys.path.insert(0, str(Path(__file__).parent))
from offline import Offline
from server import serving

QUIET = {"progress": False, "tensorboard": False, "trace": False}
TWO = {"regions": [{"name": "us", "workers": [1.0]}, {"name": "eu", "workers": [0.5]}], "step_time_ms": 1000.0}


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever begins the tests in the background has Ctrl-C ignored, and all their processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory, and nobody logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [each for each in os.environ if each.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def written(options: Any, **changes: Any) -> str:
    sections = tiny(
        cluster=TWO,
        network={"bandwidth_gbps": 0.001},
        policy={"name": "async_local_sgd"},
        evaluate={"every_local_steps": 4},
        budget={"local_steps": 16},
        observers={**QUIET, "extra": {"wandb": options}},
        **changes,
    )
    Path("c.yaml").write_text(json.dumps(sections))  # JSON is YAML
    return "c.yaml"


def lines(name: str, folder: str = "runs/run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, f"{name}.jsonl").read_text().splitlines()]


class TestConformance(ObserverConformance):
    """Offline: what is killed or interrupted, and resumed, keeps one run with the rows of an uninterrupted one."""

    plugins = ("halos_wandb",)
    sections = ({"name": "wandb", "mode": "offline"},)
    policies = ("halos",)

    def written(self, folder: Path, made: Sequence[str]) -> Any:
        found = Offline(folder)
        return found.rows, found.metrics, found.exit_code, found.run.display_name, found.summary["final_train_loss"]


def test_curves_are_what_the_records_say() -> None:
    assert main([written({"mode": "offline"})]) == 0
    found, commits = Offline(Path("runs/run")), lines("commits")
    updates, transfers = {each["id"]: each for each in lines("updates")}, lines("transfers")
    shares = [share for commit in commits for share in commit["contributions"]]
    ways = [share["end_to_end"][0] for share in shares]
    assert len(commits) == len(shares) == 8 and max(way["drift"] for way in ways) > 0.1

    def same(name: str, x: Sequence[float], y: Sequence[float], axis: str = "simulated hours") -> None:
        curve = found.curve(name, axis)
        assert [each for each, _ in curve] == pytest.approx(x) and [each for _, each in curve] == pytest.approx(y), name

    evaluations = lines("evaluations")
    assert len(evaluations) >= 4
    losses = [each["loss"] for each in evaluations]
    same("loss/validation", [each["time"] / 3600 for each in evaluations], losses)
    same("loss by tokens/validation", [each["tokens"] for each in evaluations], losses, "tokens")
    same("loss by local steps/validation", [each["local_steps"] for each in evaluations], losses, "local steps")

    hours = [commit["time"] / 3600 for commit in commits]
    trained = [updates[share["updates"][0]]["loss"] for share in shares]  # one update each
    same("loss/train", hours, trained)
    same("loss by local steps/train", [commit["local_steps"] for commit in commits], trained, "local steps")
    same("staleness/hop (versions)", hours, [share["hop_staleness"] for share in shares])
    same("staleness/end to end (versions)", hours, [way["staleness"] for way in ways])
    same("drift/hop (L2 distance)", hours, [share["hop_drift"] for share in shares])
    same("drift/end to end (L2 distance)", hours, [way["drift"] for way in ways])
    same("progress/global model (versions)", hours, range(1, 9))

    def last(name: str) -> float:
        return found.curve(name, "simulated hours")[-1][1]

    assert last("traffic/total (MB)") == pytest.approx(sum(each["bytes"] for each in transfers) / 1e6)
    pulled = [each["bytes"] for each in transfers if each["kind"] == "pull"]
    assert last("traffic/pull (MB)") == pytest.approx(sum(pulled) / 1e6)
    across = [each["bytes"] for each in transfers if (each["src"], each["dst"]) == (1, 0)]
    assert last("traffic/eu → us (MB)") == pytest.approx(sum(across) / 1e6)
    # A local step takes 1 s in us, 2 s in eu: the share of its one worker's time that computed what arrived.
    ended = commits[-1]["time"]
    for region, (name, seconds) in enumerate((("us", 1.0), ("eu", 2.0))):
        steps = sum(each["steps"] for each in updates.values() if each["region"] == region)
        assert last(f"utilization/{name}") == pytest.approx(seconds * steps / ended)


def test_configuration_labels_and_summary_are_those_of_the_run() -> None:
    options = {
        "mode": "offline",
        "project": "mine",
        "entity": "us",
        "group": "g",
        "tags": ["first"],
        "job_type": "cell",
    }
    assert main([written(options, labels={"method": "async", "K": 3})]) == 0
    found, summary = Offline(Path("runs/run")), json.loads(Path("runs/run/summary.json").read_text())
    run = found.run
    assert (run.project, run.entity, run.run_group, run.job_type, run.display_name) == (
        "mine",
        "us",
        "g",
        "cell",
        "run",
    )
    assert sorted(run.tags) == ["K: 3", "first", "method: async"]
    assert found.config["labels"] == {"method": "async", "K": 3}
    assert (found.config["policy"]["name"], found.config["cluster"]["regions"][1]["name"]) == ("async_local_sgd", "eu")
    assert found.config["versions"] == summary["versions"]
    assert found.exit_code == 0 and found.summary["finished"] is True
    for key in ("simulated_seconds", "local_steps", "final_validation_loss", "goodput", "steps", "bytes", "staleness"):
        assert found.summary[key] == summary[key], key
    (eu,) = [each for each in summary["workers"] if each["region"] == 1]
    assert found.summary["regions"]["eu"] == {key: eu[key] for key in ("compute", "transfer", "idle", "down")}
    assert found.metrics == {
        "simulated hours": "", "tokens": "", "local steps": "",
        "*": "simulated hours", "loss/*": "simulated hours",
        "loss by tokens/*": "tokens", "loss by local steps/*": "local steps",
    }  # fmt: skip


def test_a_run_that_takes_the_place_of_another_keeps_nothing_of_it() -> None:
    assert main([written({"mode": "offline"})]) == 0
    first = Offline(Path("runs/run")).path
    assert main([written({"mode": "offline"}), "--overwrite"]) == 0
    assert Offline(Path("runs/run")).path != first


ENDS = """
from pathlib import Path
from halos import UserError, hookimpl

@hookimpl
def on_commit(commit):
    if commit.version == 3 and not Path("go_on").exists():
        raise {error}
"""


@pytest.mark.parametrize(
    ("error", "code", "exit_code", "finished"),
    [
        ("UserError('the line is cut')", 2, 1, "failed: the line is cut"),
        ("KeyboardInterrupt", 130, 255, "interrupted"),
    ],
)
def test_a_run_that_does_not_finish_says_so(error: str, code: int, exit_code: int, finished: str) -> None:
    Path("ends.py").write_text(ENDS.format(error=error))
    assert main([written({"mode": "offline"}), "--plugin", "ends.py"]) == code
    found = Offline(Path("runs/run"))
    assert (found.exit_code, found.summary["finished"]) == (exit_code, finished)
    # The first model, and three commits, of which the second ended an interval of 4 steps.
    assert len(found.curve("loss/train", "tokens")) == 3 and len(found.curve("loss/validation", "tokens")) == 2


# A library that writes down what it is called with


class Library:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.starting_step = 0

    def setup(self) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode="online", silent=False))

    def login(self, **options: Any) -> bool:
        return True

    def Settings(self, **options: Any) -> Any:
        return options

    def init(self, **options: Any) -> Any:
        self.calls.append(("init", options))
        return self

    def define_metric(self, *names: Any, **options: Any) -> None:
        self.calls.append(("define_metric", names, options))

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", step, values))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))

    @property
    def summary(self) -> Any:
        return SimpleNamespace(update=lambda values: self.calls.append(("summary", values)))

    id, url, offline = "abc", "https://wandb.ai/abc", False
    settings = SimpleNamespace(sync_dir="run-abc")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def without(call: tuple[Any, ...], *keys: str) -> tuple[Any, ...]:
    return tuple(
        {key: inner for key, inner in each.items() if key not in keys} if isinstance(each, dict) else each
        for each in call
    )


def test_online_the_same_is_called_but_for_the_mode(library: Library) -> None:
    calls = []
    for mode in ("online", "offline"):
        library.calls = []
        assert main([written({"mode": mode}, out=f"runs/{mode}")]) == 0
        calls.append(library.calls)
    online, offline = calls
    assert len(online) > 15
    for one, other in zip(online, offline, strict=True):
        if one[0] == "init":
            assert (one[1]["mode"], other[1]["mode"]) == ("online", "offline")
            assert without(one, "mode", "dir", "config") == without(other, "mode", "dir", "config")
        elif one[0] == "summary":
            assert without(one, "wall_seconds") == without(other, "wall_seconds")
        else:
            assert one == other


def test_a_resumed_run_goes_on_in_the_same_one_and_logs_what_that_has_not(library: Library) -> None:
    Path("ends.py").write_text(ENDS.format(error="KeyboardInterrupt"))
    assert main([written({}), "out=runs/whole"]) == 0
    whole = [call for call in library.calls if call[0] == "log"]
    library.calls = []
    changes = ["checkpoint.every_local_steps=2", "plugins=[ends.py]"]
    assert main([written({}), *changes, "out=runs/cut"]) == 130
    first = [call for call in library.calls if call[0] == "log"]
    assert 0 < len(first) < len(whole)
    library.calls, library.starting_step = [], first[-1][1] - 50  # the last row that was logged did not arrive
    Path("go_on").touch()
    assert main(["--resume", "runs/cut"]) == 0
    (opened,) = [call[1] for call in library.calls if call[0] == "init"]
    assert (opened["id"], opened["resume"], opened["mode"]) == ("abc", "allow", None)
    assert [*first[:-1], *(call for call in library.calls if call[0] == "log")] == whole
    assert library.calls[-1] == ("finish", 0)


def test_one_that_is_turned_on_later_has_all_of_the_run(library: Library) -> None:
    assert main([written({}), "out=runs/whole"]) == 0
    whole = [call for call in library.calls if call[0] == "log"]
    library.calls = []
    assert main([written(None), "out=runs/late", "budget.local_steps=8"]) == 0
    assert library.calls == []
    assert main(["--resume", "runs/late", "budget.local_steps=16", "observers.extra.wandb={}"]) == 0
    assert [call for call in library.calls if call[0] == "log"] == whole
    (opened,) = [call[1] for call in library.calls if call[0] == "init"]
    assert (opened["id"], opened["resume"]) == (None, None)


def test_what_goes_wrong_while_it_logs_is_a_warning(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(values: Any, step: int) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(library, "log", broken)
    assert main([written({})]) == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "Weights & Biases: BrokenPipeError: [Errno 32] Broken pipe; no more is logged there, and the run goes on"
    ]
    assert len(lines("commits")) == 8


# Online, to a server on this machine

KILLED = """
import time
from pathlib import Path
from halos import hookimpl

@hookimpl
def on_commit(commit):
    if commit.version == 6 and not Path("go_on").exists():
        Path("begun").touch()
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_one_there_and_has_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    Path("killed.py").write_text(KILLED)
    command = [sys.executable, "-m", "halos.run"]
    run = [*command, written({}, plugins=["killed.py"]), "checkpoint.every_local_steps=2"]
    with serving() as server:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_BASE_URL": server.url}
        environment["WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"] = "0.2"  # seconds, of 15
        process = subprocess.Popen(run, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: len(server.curve("loss/train")) >= 3 and Path("begun").exists(), process)
        finally:
            process.kill()
            process.wait()
        Path("go_on").touch()
        resumed = subprocess.run([*command, "--resume", "runs/run"], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "WARNING" not in resumed.stderr and server.url in resumed.stderr
    # The first model is row 1, as many evaluations and commits follow as there were, and none is there twice.
    count = len(lines("commits")) + len(lines("evaluations"))
    assert sorted(json.loads(row)["_step"] for row in server.rows) == [100 * (1 + index) for index in range(count)]
    assert [loss for _, loss in server.curve("loss/validation")] == [each["loss"] for each in lines("evaluations")]
    assert (len(server.runs), server.exit_codes) == (1, [0])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    for _ in range(900):
        if condition() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert condition() and process.poll() is None


# What keeps it from beginning


def refused(capsys: pytest.CaptureFixture[str], options: Any) -> str:
    assert main([written(options)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not Path("runs").exists()
    return said


def test_without_the_library_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = refused(capsys, {})
    assert said.startswith("error: observers.extra.wandb: ") and "pip install 'halos-wandb[wandb]'" in said
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())  # a folder of that name in the working directory
    assert "observers.extra.wandb: wandb is not installed; pip install 'halos-wandb[wandb]'" in refused(capsys, {})


def test_who_is_not_logged_in_is_told_so_and_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, {"mode": "online"})
    assert said == (
        "error: observers.extra.wandb: not logged in; wandb login, or observers.extra.wandb.mode=offline, to upload it"
        " later\n"
    )


def test_what_the_library_refuses_is_one_line(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(library, "init", refuse)
    assert refused(capsys, {}) == (
        "error: observers.extra.wandb: ConnectionError: no route; or observers.extra.wandb.mode=offline, to upload it"
        " later\n"
    )


def test_disabled_it_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written({"mode": "disabled"})]) == 0
    assert not Path("runs/run/wandb").exists() and len(lines("commits")) == 8


@pytest.mark.parametrize(
    ("options", "key"),
    [({"mode": "on"}, "mode"), ({"project": "a/b"}, "project"), ({"project": ""}, "project"), ({"points": 0}, "points"),
     ({"tags": ["x" * 65]}, r"tags\[0\]"), ({"finish_seconds": 0.0}, "finish_seconds")],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        WandB(**options)


def test_what_is_not_known_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    given = {"a": None, "b": nan, "c": inf, "d": {"e": [1, -inf], "f": None}, 3: True, "g": (1, "x")}
    assert known(given) == {"c": "inf", "d": {"e": [1, "-inf"]}, "3": True, "g": [1, "x"]}


# Processes


SLOW = """
import time
from halos import hookimpl

@hookimpl
def on_commit(commit):
    if commit.version >= 3:
        open("begun", "w").close()
        time.sleep(0.1)
"""


def service_of(process: subprocess.Popen[str]) -> list[int]:
    """The library's own processes that serve this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"wandb-core" in words[0] and str(process.pid).encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_its_process_ends_with_the_run(number: int, code: int) -> None:
    Path("slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "halos.run", written({"mode": "offline"}), "--plugin", "slow.py"]
    command += ["budget.local_steps=100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(Path("begun").exists, process)
    served = service_of(process)
    assert len(served) == 1, process.poll()
    os.killpg(process.pid, number)  # as a terminal does
    assert process.wait(timeout=30) == code
    for _ in range(150):
        if not any(Path(f"/proc/{each}").exists() for each in served):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{each}").exists() for each in served), "it survived"
    if number != signal.SIGKILL:
        found = Offline(Path("runs/run"))
        assert (found.exit_code, len(found.curve("loss/train", "tokens"))) == (255, len(lines("commits")))
