"""The observer as a whole: it leaves the run alone, survives being killed, and says null where nothing is known."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from halos import Commit, hookimpl
from halos.testing import main, tiny
from halos.testing.conformance import ObserverConformance

from .conftest import begin, lines

ALL = {"probed": 1.0, "shift": True, "blocks": True, "elementwise": True, "curvature": True}
ONE = {"dtype": "float64", "size": 1}
ADAM = {"optimizer": {"name": "adamw", "lr": 0.05, "betas": [0.9, 0.5], "weight_decay": 0.0}}


class TestDrift(ObserverConformance):
    plugins = ("halos_drift",)
    sections = ({"name": "drift", **ALL},)
    policies: ClassVar[tuple[str, ...]] = ("async_local_sgd", "overlap_local_sgd")


def numbers(value: Any) -> list[Any]:
    """All leaves."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in numbers(inner)]
    return [leaf for inner in value for leaf in numbers(inner)] if isinstance(value, list) else [value]


# Killed and resumed

KILLER = """
import os, signal
from halos import hookimpl
heard = []

@hookimpl
def on_update(update):
    heard.append(1)
    if len(heard) == int(os.environ.get("KILL", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
"""
LANGUAGE = {
    "model": {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2},
    "data": {"name": "synthetic", "vocab_size": 16, "samples": 256, "sequence_length": 8, "validation_samples": 8},
    "train": {"batch_size": 2, **ADAM},
}
POLICIES = {
    "halos": {"name": "halos", "local_updates": 3},
    "streaming_diloco": {"name": "streaming_diloco", "fragments": 2, "pattern": "balanced"},
    "eager_diloco": {"name": "eager_diloco"},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_and_resumed_the_lines_are_those_of_a_run_never_interrupted(policy: str, tmp_path: Path) -> None:
    """With Adam, dropout-free GPT-NeoX, every third job done again, and a checkpoint a few steps before the kill."""
    (tmp_path / "killer.py").write_text(KILLER, encoding="utf-8")
    sections = tiny(
        **LANGUAGE,
        policy=POLICIES[policy],
        budget={"local_steps": 32},
        observers={"extra": {"drift": {"probed": 0.3, "shift": True, "elementwise": True, "curvature": True}}},
        checkpoint={"every_minutes": None, "every_local_steps": 4},
    )
    plugins = [str(tmp_path / "killer.py")]
    whole = tmp_path / "whole"
    assert begin(whole, sections, (), plugins) == 0
    expected, curves = (whole / "drift.jsonl").read_bytes(), points(whole)
    assert sum(b'"kl": 0' in line or b'"kl": ' in line for line in expected.splitlines()) > 0
    assert b'"gap_elementwise": ' in expected and b'"curvature": ' in expected
    for at in (7, 13):
        folder = tmp_path / f"killed{at}"
        child = os.fork()
        if not child:
            os.environ["KILL"] = str(at)
            begin(folder, sections, (), plugins)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with (folder / "drift.jsonl").open("ab") as file:
            file.write(b'{"half a line": ')  # as it may be
        assert main(["--resume", str(folder)]) == 0
        assert (folder / "drift.jsonl").read_bytes() == expected
        assert summary(folder) == summary(whole) and points(folder) == curves


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["observers"]["drift"]
    return found


def points(folder: Path) -> list[tuple[str, int, float, str]]:
    """All points of the curves: tag, step, simulated time and value."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = folder.glob("events.out.tfevents*.drift")
    return [
        (value.tag, event.step, event.wall_time, repr(value.tensor.float_val[0]))
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]


def test_a_file_that_was_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = tiny(observers={"extra": {"drift": {}}})
    folder = tmp_path / "run"
    assert begin(folder, sections) == 0
    text = (folder / "drift.jsonl").read_text(encoding="utf-8")
    (folder / "drift.jsonl").write_text(text.replace('"time"', '"tide"', 1), encoding="utf-8")
    capsys.readouterr()
    assert main(["--resume", str(folder), "budget.local_steps=16"]) == 2
    assert "drift.jsonl is not what this run wrote" in capsys.readouterr().err


# Turned on late


def test_turned_on_late_it_says_once_from_when_it_counts_and_then_is_as_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """HALoS: jobs of 2 s and 4.44 s, three an exchange, so at 6 s and 12 s, where two of the slower worker's wait."""
    cluster = {"regions": [{"workers": [1.0]}, {"workers": [0.45]}]}
    sections = tiny(**LANGUAGE, cluster=cluster, policy=POLICIES["halos"], budget={"local_steps": 12})
    late, whole = tmp_path / "late", tmp_path / "whole"
    observers = {"extra": {"drift": {**ALL, "elementwise": False}}}
    assert begin(whole, {**sections, "observers": observers, "budget": {"local_steps": 32}}) == 0
    assert begin(late, sections) == 0
    commits = [json.loads(line) for line in (late / "commits.jsonl").read_text(encoding="utf-8").splitlines()]
    ended, missed = commits[-1]["time"], sum(len(commit["contributions"]) for commit in commits)
    options = json.dumps(observers["extra"]["drift"])
    caplog.clear()
    assert main(["--resume", str(late), "budget.local_steps=32", f"observers.extra.drift={options}"]) == 0
    expected = lines(whole)
    said = caplog.text
    caplog.clear()
    assert said.count("observers.extra.drift") == 1 and ended == 12.0
    assert f"turned on at {ended:.6g} simulated seconds: lines, curves and means begin there" in said
    assert f"without the {missed} contributions merged before;" in said
    found, rest = lines(late), expected[missed:]
    assert len(found) == len(rest) == summary(late)["contributions"] > 4
    unknown = 0
    for line, other in zip(found, rest):
        for key in ("gap", "steps", "versions", "tree_distance", "drift", "merges"):
            assert line[key] == other[key], key
        unknown += known_or_null(line, other)
    assert found[-1] == rest[-1] and unknown > 0
    # From its own checkpoints it goes on as ever, and says nothing any more.
    assert main(["--resume", str(late), "budget.local_steps=48"]) == 0
    assert "observers.extra.drift" not in caplog.text
    assert lines(late)[: len(found)] == found and len(lines(late)) > len(found)


def known_or_null(found: Any, expected: Any) -> int:
    """How many numbers are null that are known in a run that was watched from its start; none may be another."""
    if found is None and expected is not None:
        return 1
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        return sum(known_or_null(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return sum(known_or_null(*pair) for pair in zip(found, expected, strict=True))
    assert found == expected
    return 0


def test_typical_steps_of_elements_begin_when_they_are_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One parameter, two workers one after the other: the only typical step is then that of the server since."""
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.5}}
    sections = tiny(model=ONE, policy=policy, observers={"extra": {"drift": {}}})
    folder = tmp_path / "run"
    assert begin(folder, sections) == 0
    commits = (folder / "commits.jsonl").read_text(encoding="utf-8").splitlines()
    caplog.clear()
    more = ["budget.local_steps=16", "observers.extra.drift.elementwise=true"]
    assert main(["--resume", str(folder), *more]) == 0
    said = caplog.text
    caplog.clear()
    assert said.count("observers.extra.drift") == 1 and "drift.elementwise: turned on at 4 simulated seconds" in said
    steps: list[float] = []
    moves = [json.loads(line) for line in (folder / "commits.jsonl").read_text(encoding="utf-8").splitlines()]
    found = lines(folder)
    assert all("gap_elementwise" not in line for line in found[: len(commits)])
    for line, commit in list(zip(found, moves))[len(commits) :]:
        n, expected = len(steps), None if line["drift"] else 0.0
        if line["drift"] and n:
            squares = sum(0.001 * 0.999 ** (n - 1 - i) * each**2 for i, each in enumerate(steps))
            expected = pytest.approx(line["drift"] / math.sqrt(squares / (1 - 0.999**n)))
        assert line["gap_elementwise"] == expected
        steps.append(commit["step_norm"])
    assert len(steps) == 4 and line["gap_elementwise"] != pytest.approx(line["gap"])


def test_a_timing_run_that_drift_is_turned_on_in_later_is_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is computed again from its beginning, which takes no longer."""
    sections = tiny(executor={"name": "timing"}, policy={"name": "halos", "local_updates": 2})
    late, whole = tmp_path / "late", tmp_path / "whole"
    observers = {"extra": {"drift": {}}}
    assert begin(whole, {**sections, "observers": observers, "budget": {"local_steps": 16}}) == 0
    assert begin(late, sections) == 0
    caplog.clear()
    assert main(["--resume", str(late), "budget.local_steps=16", "observers.extra.drift={}"]) == 0
    assert "observers.extra.drift" not in caplog.text
    assert lines(late) == lines(whole)


# What is not known


def test_a_timing_run_has_ages_and_no_distances(tmp_path: Path) -> None:
    changes = {"policy": {"name": "halos", "local_updates": 2}, "budget": {"local_steps": 16}}
    found = []
    for executor in ("timing", "inline"):
        folder = tmp_path / executor
        options = {"extra": {"drift": {**ALL, "probed": 0.0}}}
        assert begin(folder, tiny(**changes, executor={"name": executor}, observers=options)) == 0
        found.append(lines(folder))
    ages = ("time", "server", "version", "index", "updates", "workers", "regions", "local_steps", "versions", "seconds")
    ages += ("steps", "tree_distance", "ancestor", "merges", "parameters")
    timed, trained = ([{key: line[key] for key in ages} for line in several] for several in found)
    assert timed == trained and len(timed) > 8
    for line in found[0]:
        rest = {key: value for key, value in line.items() if key not in ages}
        ways = rest.pop("end_to_end")
        assert {*numbers(rest)} == {None}, rest
        assert all(way["drift"] is None and way["gap"] is None and way["seconds"] is not None for way in ways)


def test_momentum_free_rules_and_optimizers_without_moments_say_null(drifting: Any) -> None:
    found = drifting(tiny(model=ONE), adam=False)
    assert {line["alignment"] for line in found} == {None} == {line["adam_drift"] for line in found}
    assert all(line["probe"] is None for line in drifting(tiny(model=ONE), probed=0.0))


UNTAUGHT = """
from dataclasses import dataclass
from halos import hookimpl
from halos.training.inline import Inline

@dataclass
class Untaught(Inline):
    probe_gradient = None

@hookimpl
def register_executors(register):
    register("untaught", Untaught)
"""


def test_curvature_that_an_executor_cannot_tell_is_said_once_and_null(
    tmp_path: Path, drifting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "untaught.py").write_text(UNTAUGHT, encoding="utf-8")
    sections, plugins = tiny(model=ONE, executor={"name": "untaught"}), [str(tmp_path / "untaught.py")]
    found = drifting(sections, plugins, probed=1.0, curvature=True)
    assert {line["probe"]["curvature"] for line in found} == {None} and found[0]["probe"]["staleness_error"] == 0.0
    assert caplog.text.count("drift.curvature: this executor gives no gradient of the probe batch") == 1
    caplog.clear()
    drifting(sections, plugins, probed=1.0)
    drifting(tiny(model=ONE), probed=1.0, curvature=True)
    assert "drift" not in caplog.text


def test_lines_are_the_same_whichever_executor_trains(drifting: Any) -> None:
    """Of parallel, which gives models another place in memory once they have been committed."""
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.5}}
    found = [
        drifting(tiny(model=ONE, policy=policy, budget={"local_steps": 16}, executor=executor), **ALL)
        for executor in ({"name": "inline"}, {"name": "parallel", "processes": 2})
    ]
    assert found[0] == found[1] and found[0][-1]["end_to_end"][0]["probe"]["stepped_loss"] is not None


def test_the_only_fragment_is_one_and_has_no_probe_of_its_own(drifting: Any) -> None:
    """What is merged is a fragment's difference; whose job it was is looked at end to end."""
    policy = {"name": "streaming_diloco", "fragments": 1, "tau": 1, "alpha": 0.5}
    found = drifting(tiny(model=ONE, policy=policy, budget={"local_steps": 12}), probed=1.0)
    assert {line["probe"] for line in found} == {None}
    assert all(way["probe"] for line in found for way in line["end_to_end"])


# Sampled jobs


def test_who_is_sampled_follows_from_the_seed_alone(drifting: Any) -> None:
    def sampled(sections: dict[str, Any], seed: int) -> list[int]:
        return [
            way["update"]
            for line in drifting(sections, probed=0.5, probe_seed=seed)
            for way in line["end_to_end"]
            if way["probe"]
        ]

    diloco, budget = {"name": "diloco"}, {"local_steps": 80}
    first = sampled(tiny(model=ONE, policy=diloco, budget=budget), 0)
    assert sampled(tiny(model=ONE, policy=diloco, budget=budget, seed=5), 0) == first
    assert sampled(tiny(model=ONE, policy={"name": "one_step_delay"}, budget=budget), 0) == first
    assert sampled(tiny(model=ONE, policy=diloco, budget=budget), 1) != first
    assert 10 <= len(first) <= 30  # of 40


def test_the_noise_floor_is_the_root_of_two_where_there_is_nothing_but_noise(drifting: Any) -> None:
    # From the optimum a job goes where its noise leads: the difference of two such has twice one's variance.
    model = {"name": "quadratic", "size": 600, "start": 1.0, "noise": 1.0}
    found = drifting(tiny(model=model, data={"samples": 256}, budget={"local_steps": 40}), probed=1.0)
    floors = [line["probe"]["noise_floor"] for line in found]
    assert len(floors) == 20 and all(abs(floor / math.sqrt(2) - 1) < 0.15 for floor in floors)
    assert abs(sum(floors) / 20 / math.sqrt(2) - 1) < 0.03


def test_the_staleness_error_is_the_closed_form_whatever_the_noise(drifting: Any) -> None:
    """Δ − Δ* = −(I − (I − ηA)^H) d, of the same samples; so the shift is its squared norm, exactly."""
    a, eta, steps = (1.0, 4.0, 9.0), 0.1, 3
    model = {"name": "quadratic", "size": 3, "curvature": list(a), "noise": 0.5, "dtype": "float64"}
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.5}}
    sections = tiny(model=model, policy=policy, steps={"base": steps}, budget={"local_steps": 36})
    found = drifting(sections, probed=1.0, shift=True, blocks=True)
    watching = Watching()
    run_with(sections, watching)
    assert len(found) == len(watching.moved) == 12
    for line, d in zip(found, watching.moved):
        lost = [(1 - (1 - eta * each) ** steps) * x for each, x in zip(a, d)]
        assert line["probe"]["shift"] == pytest.approx(sum(each**2 for each in lost), rel=1e-9, abs=1e-18)
        # ‖Δ − Δ*‖ / ‖Δ*‖, Δ* = Δ + (I − (I − ηA)^H) d: by the cosine and the error, Δ* has that length.
        if any(d):
            fresh = math.hypot(*lost) / line["probe"]["staleness_error"]
            assert line["delta_norm"] ** 2 == pytest.approx(
                fresh**2 + math.hypot(*lost) ** 2 - 2 * watching.inner(line, lost), rel=1e-9
            )


class Watching:
    """d and Δ of every contribution, as the records have them."""

    def __init__(self) -> None:
        self.moved: list[list[float]] = []
        self.deltas: dict[int, torch.Tensor] = {}

    @hookimpl
    def on_commit(self, commit: Commit) -> None:
        for share in commit.shares:
            assert share.target.flat is not None and share.base.flat is not None
            self.moved.append((share.target.flat - share.base.flat).tolist())
            delta = share.updates[0].delta.flat
            assert delta is not None
            self.deltas[share.updates[0].id] = delta

    def inner(self, line: dict[str, Any], lost: list[float]) -> float:
        """⟨Δ*, (I − (I − ηA)^H) d⟩, with Δ* = Δ + that."""
        delta = self.deltas[line["updates"][0]].tolist()
        return sum((x + each) * each for x, each in zip(delta, lost))


def run_with(sections: dict[str, Any], watching: Watching) -> None:
    """Run a configuration in memory with another observer."""
    from contextlib import closing

    from halos.testing.recording import UNWRITTEN, assemble, merge, resolved

    config, found = resolved(merge(sections, UNWRITTEN))
    with closing(assemble(config, found)) as run:
        found.manager.register(watching)
        run.train()


def test_function_drift_is_the_divergence_of_what_both_models_predict(drifting: Any) -> None:
    """Against PyTorch's own, on modules built anew, of the validation samples."""
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.7}}
    sections = tiny(**LANGUAGE, policy=policy, budget={"local_steps": 16})
    found = drifting(sections, probed=1.0, probe_samples=8)
    from contextlib import closing

    from halos.testing.recording import UNWRITTEN, assemble, merge, resolved

    several: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    class Models:
        @hookimpl
        def on_commit(self, commit: Commit) -> None:
            several.extend((share.base.tensors(), share.target.tensors()) for share in commit.shares)

    config, plugins = resolved(merge(sections, UNWRITTEN))
    with closing(assemble(config, plugins)) as run:
        plugins.manager.register(Models())
        run.train()
    corpus = config.data.open(config.seed)
    batch = torch.as_tensor(corpus.read(slice(len(corpus) - 8, len(corpus)))).long()
    assert len(found) == len(several) == 8
    for line, pair in zip(found, several):
        logs, losses = [], []
        for tensors in pair:
            module: Any = config.model.build(16, 0)
            module.load_state_dict(tensors)
            with torch.no_grad():
                logs.append(module.logits(batch[:, :-1]).flatten(0, 1).log_softmax(-1).double())
                losses.append(float(module(batch)))
        middle = torch.logaddexp(*logs) - math.log(2)
        divergence = lambda p, q: float((p.exp() * (p - q)).sum(-1).mean())  # noqa: E731
        assert line["probe"]["kl"] == pytest.approx(divergence(*logs), rel=1e-4, abs=1e-7)
        js = (divergence(logs[0], middle) + divergence(logs[1], middle)) / 2
        assert line["probe"]["js"] == pytest.approx(js, rel=1e-4, abs=1e-7) and line["probe"]["js"] <= math.log(2)
        assert line["probe"]["loss_change"] == pytest.approx(losses[1] - losses[0], abs=1e-6)
    assert found[0]["probe"]["kl"] == 0.0 and found[0]["probe"]["js"] == 0.0  # from the very model
    assert all(line["probe"]["kl"] > 0 for line in found[1:])


# Adam's own distance


def test_adam_weighted_drift_by_hand(drifting: Any) -> None:
    """A worker's Adam written out in plain numbers: a = (1, 4), two steps a job, at 0.05 and β = (0.9, 0.5)."""
    a = (1.0, 4.0)
    model = {"name": "quadratic", "size": 2, "curvature": list(a), "dtype": "float64"}
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}}
    found = drifting(tiny(model=model, policy=policy, train=ADAM))
    workers = [Worker(), Worker()]
    theta, starts = [0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]
    for line, index in zip(found, (0, 1, 0, 1)):
        end = workers[index].train(starts[index], a)
        weights = [math.sqrt(v / (1 - 0.5 ** workers[index].steps)) for v in workers[index].v]
        d = [t - s for t, s in zip(theta, starts[index])]
        delta = [s - e for s, e in zip(starts[index], end)]
        drift = math.sqrt(sum(w * x**2 for w, x in zip(weights, d)))
        assert line["adam_drift"] == pytest.approx(drift, abs=1e-12)
        length = math.sqrt(sum(w * x**2 for w, x in zip(weights, delta)))
        assert line["adam_drift_by_delta"] == pytest.approx(drift / length, abs=1e-12)
        theta = [t - x for t, x in zip(theta, delta)]
        starts[index] = theta
    assert found[3]["adam_drift"] > 0


class Worker:
    """Adam (arXiv 1412.6980, Algorithm 1) on ½ Σ a (θ − 1)²."""

    def __init__(self) -> None:
        self.m, self.v, self.steps = [0.0, 0.0], [0.0, 0.0], 0

    def train(self, theta: list[float], a: tuple[float, ...]) -> list[float]:
        for _ in range(2):
            self.steps += 1
            g = [c * (t - 1) for c, t in zip(a, theta)]
            self.m = [0.9 * m + 0.1 * each for m, each in zip(self.m, g)]
            self.v = [0.5 * v + 0.5 * each**2 for v, each in zip(self.v, g)]
            rate = [0.05 / (1 - 0.9**self.steps) / (math.sqrt(v / (1 - 0.5**self.steps)) + 1e-8) for v in self.v]
            theta = [t - r * m for t, r, m in zip(theta, rate, self.m)]
        return theta


@pytest.mark.parametrize("policy", ["one_step_delay", "eager_diloco", "overlap_local_sgd"])
def test_moments_are_those_at_the_end_of_the_job_also_if_it_is_merged_later(policy: str, drifting: Any) -> None:
    # With β₂ = 0.5 they change with every job; a line's ratio must be that of the v̂ when its update arrived. In one
    # parameter √v̂ cancels, so the ratio is ‖d‖ / ‖Δ‖ and D_A itself is √(√v̂) ‖d‖.
    found = drifting(tiny(model=ONE, policy={"name": policy}, train=ADAM, budget={"local_steps": 24}))
    late = [line for line in found if line["drift"]]
    assert len(late) >= 4
    for line in late:
        assert line["adam_drift_by_delta"] == pytest.approx(line["drift_by_delta"], rel=1e-9)
    assert len({round(line["adam_drift"] / line["drift"], 12) for line in late}) > 1


# Blocks, summary, curves


def test_blocks_are_the_same_formulas_on_slices(drifting: Any) -> None:
    sections = tiny(**LANGUAGE, policy={"name": "async_local_sgd"}, budget={"local_steps": 12})
    found = drifting(sections, blocks=True)
    last = found[-1]
    assert sum(block["drift"] ** 2 for block in last["blocks"].values()) == pytest.approx(last["drift"] ** 2)
    assert sum(block["delta_norm"] ** 2 for block in last["blocks"].values()) == pytest.approx(last["delta_norm"] ** 2)
    assert sum(block["adam_drift"] ** 2 for block in last["blocks"].values()) == pytest.approx(last["adam_drift"] ** 2)
    inner = sum(
        block["redundancy"] * block["drift"] * block["delta_norm"]
        for block in last["blocks"].values()
        if block["redundancy"] is not None
    )
    assert inner / last["drift"] / last["delta_norm"] == pytest.approx(last["redundancy"], abs=1e-9)
    assert "lm_head.weight" in last["blocks"] and "blocks" not in drifting(sections)[-1]


def test_the_summary_has_means_and_maxima_by_worker_region_and_server(tmp_path: Path) -> None:
    cluster = {"regions": [{"workers": [1.0]}, {"workers": [1.0]}]}
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.5}}
    sections = tiny(model=ONE, cluster=cluster, policy=policy, observers={"extra": {"drift": {"probed": 1.0}}})
    assert begin(tmp_path / "run", sections) == 0
    found, made = lines(tmp_path / "run"), summary(tmp_path / "run")
    # 0, 0.095, 0.095 and 0.085975 (see test_policies.py), of workers 0, 1, 0, 1; each in its own region.
    drifts = [line["drift"] for line in found]
    assert made["hop"]["drift"] == pytest.approx({"mean": sum(drifts) / 4, "max": max(drifts)})
    assert made["end_to_end"]["drift"] == pytest.approx(made["hop"]["drift"])
    assert made["contributions"] == 4 and made["probed"] == 4
    for index in (0, 1):
        mine = drifts[index::2]
        expected = pytest.approx({"mean": sum(mine) / 2, "max": max(mine)})
        assert made["workers"][index]["worker"] == made["regions"][index]["region"] == index
        assert made["workers"][index]["hop"]["drift"] == made["regions"][index]["end_to_end"]["drift"] == expected
    assert [server["server"] for server in made["servers"]] == ["global"]
    # Of three contributions only: the first has no redundancy, and that is not 0.
    assert made["hop"]["redundancy"] == pytest.approx({"mean": 1.0, "max": 1.0})
    assert made["hop"]["kl"] is None


def test_curves_are_on_the_simulated_clock_from_zero(tmp_path: Path) -> None:
    policy = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 0.5}}
    sections = tiny(model=ONE, policy=policy, observers={"extra": {"drift": {}}})
    assert begin(tmp_path / "run", sections) == 0
    curve = [each[1:] for each in points(tmp_path / "run") if each[0] == "drift (plugin)/‖d‖"]
    assert curve[0] == (0, 0.0, "nan")
    assert [(step, time) for step, time, _ in curve[1:]] == [(2, 2.0), (4, 2.0), (6, 4.0), (8, 4.0)]
    assert [float(value) for _, _, value in curve[1:]] == pytest.approx([0.0, 0.095, 0.095, 0.085975])


def test_without_tensorboard_there_are_no_curves(tmp_path: Path) -> None:
    sections = tiny(observers={"tensorboard": False, "extra": {"drift": {}}})
    assert begin(tmp_path / "run", sections) == 0
    assert list((tmp_path / "run").glob("*.drift")) == []
