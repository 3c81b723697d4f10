"""Jobs in actors on two nodes: the bits of `inline`, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("ray")

import halos_ray
from halos_ray import Ray
from halos_ray.crew import Crew, Inner, Member
from halos_ray.seat import Place

from halos import Died, Diverged, Job, Outcome, Update, hookimpl
from halos.testing import main, record, tiny
from halos.testing.conformance import ExecutorConformance
from halos.testing.witness import everything, fingerprint

TWO = {"executor": {"name": "ray", "actors": 2}}
NOISY = tiny(
    cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.4, 0.9]}]},
    network={"bandwidth_gbps": 0.001},
    model={"name": "quadratic", "size": 3, "noise": 0.3, "wire_bytes": 200_000},
    data={"samples": 4096, "validation_samples": 4},
    train={"optimizer": {"name": "adamw", "lr": 0.03}},
    policy={"name": "halos"},
    steps={"base": 4},
    budget={"local_steps": 64},
    evaluate={"every_local_steps": 24},
    observers={"progress": False, "tensorboard": False, "trace": False},
)
# Large enough for Ray's store: smaller vectors travel with the messages.
LARGE = {"model": {"name": "quadratic", "size": 50_000, "noise": 0.3, "wire_bytes": 200_000}}


@pytest.mark.usefixtures("lasting")
class TestConformance(ExecutorConformance):
    plugins: ClassVar[Sequence[str]] = ["halos_ray"]
    sections = ({"name": "ray", "actors": 2},)
    tolerance = 0.0


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize(
    "changes",
    [
        LARGE,
        {"faults": {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001,
                    "inner_state": "gone", "samples": "again"}},
        {"train": {"precision": "fp16"}, "model": {"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 2,
                   "wire_bytes": 200_000, "size": None, "noise": None, "optimum": None, "start": None}},
    ],
    ids=["large", "crashes", "fp16"],
)  # fmt: skip
def test_all_records_and_inner_states_are_those_of_inline(changes: dict[str, Any]) -> None:
    sections = merged(NOISY, changes)
    one, other = (record(each) for each in (sections, merged(sections, TWO)))
    assert everything(one) == everything(other)
    states = [fingerprint(run.config.executor.state()) for run in (one, other)]  # type: ignore[attr-defined]
    assert states[0] == states[1]


def merged(sections: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The same with these keys changed; null: without it."""
    result = dict(sections)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        if both and value.get("name", result[key].get("name")) == result[key].get("name"):
            value = merged(result[key], value)
        elif isinstance(value, dict):
            value = {name: each for name, each in value.items() if each is not None}
        result[key] = value
    return result


Deed = Callable[[Crew], None]


def made(folder: Path, deed: Deed, patch: pytest.MonkeyPatch, **changes: Any) -> int:
    """A run into a folder, to whose crew something is done when its sixth result is asked for; the exit code."""
    asked, result = [0], Ray.result

    def counted(self: Ray, job: Job) -> Outcome:
        asked[0] += 1
        if asked[0] == 6:
            deed(self._crew)
        return result(self, job)

    patch.setattr(Ray, "result", counted)
    sections = merged(merged(NOISY, LARGE), {"checkpoint": {"every_local_steps": 1}, **TWO, **changes})
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(sections), encoding="utf-8")  # JSON is YAML
    code = main([str(config), f"out={folder}", "observers.results=true"])
    patch.setattr(Ray, "result", result)
    return code


def left(folder: Path) -> dict[str, bytes]:
    """What a run has left that is the same whoever has trained it."""
    names = ("updates.jsonl", "commits.jsonl", "evaluations.jsonl", "transfers.jsonl", "model.pt")
    found = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    assert len(found) >= 4
    return found


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `inline` leaves."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert made(folder, lambda crew: None, patch, executor={"name": "inline"}) == 0
    return left(folder)


def kill(crew: Crew) -> None:
    """The actor that has most to do."""
    member = max(crew.members, key=lambda member: member.load)
    os.kill(member.place.pid, signal.SIGKILL)


def kill_all(crew: Crew) -> None:
    for member in crew.members:
        os.kill(member.place.pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_dies_is_named_and_others_train_its_jobs_again_until_nobody_is_left(
    cluster: Any,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """First an actor, then a node with another, then the last ones, from which the run goes on by `inline`."""
    assert made(tmp_path / "actor", kill, monkeypatch) == 0
    assert left(tmp_path / "actor") == whole
    (said,) = [message for message in caplog.messages if "executor ray" in message]
    assert re.fullmatch(
        r"executor ray: actor [01] \(process \d+ on node [\d.]+\) has ended with job \d+ of worker \d"
        r"( and job \d+ of worker \d)? in hand; the others train these again",
        said,
    )
    caplog.clear()
    head, (node,) = cluster.head_node, cluster.worker_nodes

    def kill_node(crew: Crew) -> None:
        assert {member.place.node for member in crew.members} == {head.node_id, node.node_id}
        cluster.remove_node(node, allow_graceful=False)

    assert made(tmp_path / "node", kill_node, monkeypatch) == 0
    assert left(tmp_path / "node") == whole
    (said,) = [message for message in caplog.messages if "executor ray" in message]
    assert "is dead, and its node with job" in said

    capsys.readouterr()
    assert made(tmp_path / "last", kill_all, monkeypatch) == 1
    assert re.search(r"stopped: executor ray: actor [01] .* has ended.*; no other is left; what", capsys.readouterr().err)
    assert main(["--resume", str(tmp_path / "last"), "executor=inline"]) == 0
    assert left(tmp_path / "last") == whole
