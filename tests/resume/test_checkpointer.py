"""What a replay restores, what it cannot, and that a run goes on whatever becomes of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from halos import Update, hookimpl
from halos.config.layers import merge, read
from halos.config.yaml_text import to_yaml
from halos.resume import checkpointer
from halos.resume.checkpointer import blamed, ours
from halos.resume.tape import Tape
from halos.run import resuming as resume
from halos.run.lifecycle import run
from halos.testing import resuming
from tests.run.cutting import NOISY, cut, events_of, go_on, refused, text, what_it_left


def mine(tmp_path: Path, body: str, before: str = "") -> str:
    """A configuration with a policy of its own: DiLoCo, with `body` before each outer step."""
    lines = "".join(f"            {line}\n" for line in body.splitlines())
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom halos import all_of, hookimpl\n"
        f"{before}\n"
        "@dataclass\nclass Mine:\n    async def run(self, sim):\n        theta, kept, total = sim.params, None, 0.0\n"
        "        for r in sim.rounds():\n"
        "            updates = await all_of(sim.train(worker, theta, round=r) for worker in sim.workers)\n"
        "            delta = await sim.all_reduce(update.delta for update in updates)\n"
        "            scale = 1.0\n"
        f"{lines}"
        "            theta = theta - scale * delta\n            sim.commit(theta, updates)\n"
        "    def report(self):\n        return {}\n\n"
        "@hookimpl\ndef register_sync_policies(register): register('mine', Mine)\n",
        encoding="utf-8",
    )
    return to_yaml(merge({**NOISY, "policy": {}}, {"policy": {"name": "mine"}, "plugins": [str(tmp_path / "mine.py")]}))


@pytest.mark.parametrize(
    "body",
    [
        "if delta.norm() > 0.5: scale = 0.5 / delta.norm()",
        "if sim.scalar(lambda: (delta * 2.0).norm()) > 1.0: theta = theta * 1.0",
        "total += delta.dot(theta)\nscale = 1.0 / (1.0 + abs(total))",
    ],
)
def test_policies_may_branch_on_norms_and_products(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = mine(tmp_path, body)
    whole, events = events_of(monkeypatch, tmp_path, config)
    for folder in cut(monkeypatch, tmp_path, config, range(0, events, events // 4)):
        assert what_it_left(go_on(folder)) == what_it_left(whole)


@pytest.mark.parametrize(
    "body",
    [
        "kept = delta.flat.clone()",
        "scale = float(delta.flat[0]) > 0",
        "delta.tensors()['theta'].sum()",
    ],
)
def test_what_a_replay_cannot_restore_is_refused_with_its_line(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = mine(tmp_path, body)
    _, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events - 2])
    said = refused(folder, capsys)
    assert f"the run cannot be resumed: replayed without tensors, run ({tmp_path / 'mine.py'}:12): " in said


def test_state_outside_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Parameters more in every third of all rounds that this process has seen, of 4 in each run.
    config = mine(tmp_path, "import sys\nseen = vars(sys).setdefault('_seen', [])\nseen.append(1)\n"
                            "if len(seen) % 3 == 0: theta = theta * 1.0")  # fmt: skip
    _, events = events_of(monkeypatch, tmp_path, config)
    (folder,) = cut(monkeypatch, tmp_path, config, [events - 2])
    said = refused(folder, capsys)
    assert " simulated seconds its events" in said
    assert " differ. Does a plugin keep state outside the run" in said


def test_observers_that_come_later_leave_no_trace_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late.py").write_text(
        "from halos import hookimpl\n\n@hookimpl\ndef on_update(update):\n    update.delta.norm()\n", encoding="utf-8"
    )
    whole, events = events_of(monkeypatch, tmp_path, text())
    (folder,) = cut(monkeypatch, tmp_path, text(), [events // 2])
    run(*resume.load_run(folder, [], [str(tmp_path / "late.py")]))
    found, expected = what_it_left(folder), what_it_left(whole)
    assert {**found, "summary": None} == {**expected, "summary": None}


@dataclass
class Norms:
    """An observer that looks like a component, but is none of the run's."""

    @hookimpl
    def on_update(self, update: Update) -> None:
        (update.delta * 2.0).norm()


def test_an_observer_may_be_a_dataclass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, events = events_of(monkeypatch, tmp_path, text())
    (folder,) = cut(monkeypatch, tmp_path, text(), [events // 2])
    config, plugins, earlier = resume.load_run(folder, [])
    plugins.manager.register(Norms())
    run(config, plugins, earlier)
    assert {**what_it_left(folder), "summary": None} == {**what_it_left(whole), "summary": None}


def written(tmp_path: Path, config: str) -> Path:
    (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
    return tmp_path / "c.yaml"


def test_the_check_for_plugins_names_the_line(tmp_path: Path) -> None:
    sections = lambda body: read(written(tmp_path, mine(tmp_path, body)))  # noqa: E731
    assert resuming.problem(sections("if delta.norm() > 0.5: scale = 0.5 / delta.norm()"), cuts=2) is None
    unseen = resuming.problem(sections("if not delta.hollow: total += 0.1\nscale = total"), cuts=3)
    assert unseen is not None
    assert f"made at {tmp_path / 'mine.py'}:14, are not what they were in the run" in unseen
    outside = resuming.problem(
        sections("import sys\nseen = vars(sys).setdefault('_seen', [])\nseen.append(1)\n"
                 "if len(seen) % 3 == 0: theta = theta * 1.0"), cuts=1, seed=2)  # fmt: skip
    assert outside is not None
    assert f"{tmp_path / 'mine.py'}:15" in outside


def test_the_line_to_blame_is_a_policys_or_a_plugins() -> None:
    core = Path(checkpointer.__file__).parents[1]
    assert [ours(core / name) for name in ("sim/clock.py", "resume/tape.py", "policies/diloco.py")] == [
        True,
        True,
        False,
    ]
    assert ours(Path(torch.__file__).parent / "functional.py")
    assert not ours(Path("mine.py"))
    with pytest.raises(ZeroDivisionError) as raised:
        Tape(recording=True).number(divided)
    line = divided.__code__.co_firstlineno + 1
    assert blamed(raised.value) == f"divided ({__file__}:{line}): "


def divided() -> float:
    return 1 / 0
