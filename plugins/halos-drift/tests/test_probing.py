"""Jobs done again: against PyTorch by itself, behind codecs and faults, and that the run is no other one for it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from halos_drift.probing import Probing

from halos import Job, Layout, Params, Update
from halos.testing import tiny

from .conftest import begin

BOWL = {"name": "quadratic", "size": 2, "curvature": [1.0, 2.0], "dtype": "float64"}
SLOWER = {"regions": [{"workers": [1.0, 0.45]}]}  # jobs of 2 s and 4.44 s: arrivals at 2, 4, 4.44, 6, 8, 8.89, 10, 12
ORDER = [0, 0, 1, 0, 0, 1, 0, 0]
KEEPING = {
    "model": {"name": "testing_keeping"},
    "data": {"samples": 512},
    "train": {"batch_size": 4, "optimizer": {"name": "adamw", "lr": 0.01}},
}
PLUGINS = ["halos.testing.situations"]
ASYNC = {"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}}


class Alone:
    """A worker by itself: two steps at a time on the bowl, with an optimizer that it keeps."""

    def __init__(self, optimizer: dict[str, Any]) -> None:
        self.options, self.state = optimizer, None

    def job(self, start: torch.Tensor, keep: bool) -> torch.Tensor:
        """Δ from `start`; without `keep` it has not happened."""
        theta = torch.nn.Parameter(start.clone())
        if self.options["name"] == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD([theta], lr=0.05, momentum=0.9)
        else:
            optimizer = torch.optim.AdamW([theta], lr=0.05, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.0)
        if self.state is not None:
            optimizer.load_state_dict(copy.deepcopy(self.state))
        for _ in range(2):
            optimizer.zero_grad()
            (0.5 * (torch.tensor([1.0, 2.0]) * (theta - 1.0) ** 2).sum()).backward()
            optimizer.step()
        if keep:
            self.state = optimizer.state_dict()
        return start - theta.detach()

    def weights(self) -> Optional[torch.Tensor]:
        """√v̂, if it has that."""
        if self.options["name"] == "sgd":
            return None
        (kept,) = self.state["state"].values()  # type: ignore[index]
        return (kept["exp_avg_sq"] / (1 - 0.9 ** float(kept["step"]))).sqrt()


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adamw", "lr": 0.05, "betas": [0.8, 0.9]}],
    ids=["sgd with momentum", "adamw"],
)
def test_a_job_done_again_is_what_pytorch_alone_makes_of_it(optimizer: dict[str, Any], drifting: Any) -> None:
    lines = drifting(
        tiny(
            cluster=SLOWER,
            model=BOWL,
            train={"optimizer": {**optimizer, "weight_decay": 0.0}},
            policy=ASYNC,
            budget={"local_steps": 16},
        ),
        probed=1.0,
    )
    workers, began = [Alone(optimizer), Alone(optimizer)], [0, 0]
    thetas = [torch.zeros(2, dtype=torch.float64)]
    for version, (id, line) in enumerate(zip(ORDER, lines)):
        worker, base, target = workers[id], thetas[began[id]], thetas[-1]
        fresh, delta = worker.job(target, keep=False), worker.job(base, keep=True)
        assert line["probe"]["staleness_error"] == pytest.approx(float((delta - fresh).norm() / fresh.norm()))
        cosine = float(torch.dot(delta, fresh) / delta.norm() / fresh.norm())
        assert line["probe"]["staleness_cosine"] == pytest.approx(cosine)
        assert line["delta_norm"] == pytest.approx(float(delta.norm()))
        weights, d = worker.weights(), target - base
        if weights is None:
            assert line["adam_drift"] is None
        else:
            assert line["adam_drift"] == pytest.approx(math.sqrt(float((weights * d * d).sum())))
            ratio = math.sqrt(float((weights * d * d).sum() / (weights * delta * delta).sum()))
            assert line["adam_drift_by_delta"] == pytest.approx(ratio)
        thetas.append(target - delta)
        began[id] = version + 1


def test_without_drift_a_job_done_again_is_the_job_also_with_what_a_module_keeps_and_draws(drifting: Any) -> None:
    lines = drifting(tiny(**KEEPING, budget={"local_steps": 12}), PLUGINS, probed=1.0)
    assert [line["probe"]["staleness_error"] for line in lines] == [0.0] * 6
    assert all(line["probe"]["noise_floor"] > 0.0 for line in lines)


def test_nothing_is_another_behind_a_codec_and_faults(tmp_path: Path) -> None:
    """Batch norm, dropout, Adam; a crash that takes a job and the inner state; messages in half precision."""
    sections = tiny(
        **KEEPING,
        cluster=SLOWER,
        policy=ASYNC,
        codec={"name": "bf16"},
        faults={"name": "crashes", "at": [{"worker": 0, "at_seconds": 5.0, "seconds": 1.0}], "inner_state": "gone"},
        evaluate={"every_local_steps": 4},
        budget={"local_steps": 24},
    )
    quiet = {"tensorboard": False, "trace": False}
    extra = {"extra": {"drift": {"probed": 1.0, "shift": True}}}
    assert begin(tmp_path / "alone", {**sections, "observers": quiet}, (), PLUGINS) == 0
    assert begin(tmp_path / "watched", {**sections, "observers": {**quiet, **extra}}, (), PLUGINS) == 0
    for name in ("updates.jsonl", "commits.jsonl", "transfers.jsonl", "evaluations.jsonl", "model.pt"):
        one, other = (tmp_path / folder / name for folder in ("alone", "watched"))
        assert one.read_bytes() == other.read_bytes(), name
    assert json.loads((tmp_path / "alone" / "summary.json").read_text(encoding="utf-8"))["lost"]["jobs"] > 0


def test_what_a_codec_loses_is_no_staleness(drifting: Any) -> None:
    """A worker alone, so that nothing drifts: but its server sees what is left of its Δ of −0.19 and −0.36."""
    lines = drifting(
        tiny(
            cluster={"regions": [{"workers": [1.0]}]},
            model=BOWL,
            policy=ASYNC,
            codec={"name": "bf16"},
            budget={"local_steps": 4},
        ),
        probed=1.0,
    )
    seen = torch.tensor([0.19, 0.36]).bfloat16().double()
    assert lines[0]["delta_norm"] == float(seen.norm()) != pytest.approx(math.hypot(0.19, 0.36), rel=1e-6)
    for line in lines:
        assert line["probe"]["staleness_error"] == 0.0
        assert line["probe"]["stepped_loss"] == line["probe"]["stepped_loss_fresh"]
    left = [1.0 - float(each) for each in seen]
    assert lines[0]["probe"]["stepped_loss"] == pytest.approx(0.5 * (left[0] ** 2 + 2.0 * left[1] ** 2))


def test_ages_around_a_job_that_is_lost(drifting: Any) -> None:
    # Worker 0 is down from 1 s to 1.5 s; its next job is from 1.5 s to 3.5 s, from the model before the other's
    # update of 2 s; the other's second, of 4 s, began with that.
    lines = drifting(
        tiny(
            model=BOWL,
            policy=ASYNC,
            faults={"name": "crashes", "at": [{"worker": 0, "at_seconds": 1.0, "seconds": 0.5}]},
            budget={"local_steps": 6},
        ),
        probed=1.0,
    )
    keys = ("time", "workers", "seconds", "versions", "steps", "tree_distance")
    found = [[line[key] for key in keys] for line in lines]
    assert found == [[2.0, [1], 2.0, 0, 0, 1], [3.5, [0], 2.0, 1, 2, 3], [4.0, [1], 2.0, 1, 2, 3]]
    # Δ − Δ* = −(1 − 0.81, 1 − 0.64) d, and d is (0.19, 0.36); Δ* = −(0.19 · 0.81, 0.36 · 0.64).
    error = math.hypot(0.19 * 0.19, 0.36 * 0.36) / math.hypot(0.19 * 0.81, 0.36 * 0.64)
    assert lines[1]["probe"]["staleness_error"] == pytest.approx(error)


def test_a_run_that_diverges_leaves_lines_without_what_is_no_number(tmp_path: Path) -> None:
    sections = tiny(cluster=SLOWER, train={"optimizer": {"lr": 40.0}}, policy=ASYNC, budget={"local_steps": 400})
    observers = {"tensorboard": False, "extra": {"drift": {"probed": 1.0, "shift": True}}}
    assert begin(tmp_path / "run", {**sections, "observers": observers}) == 1

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    texts = (tmp_path / "run" / "drift.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(text, parse_constant=refuse) for text in texts]
    commits = (tmp_path / "run" / "commits.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(commits) > 4
    assert lines[-1]["probe"]["staleness_error"] is None and lines[0]["probe"]["staleness_error"] == 0.0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["observers"]["drift"]["contributions"] == len(lines)


def test_every_job_is_done_again_if_all_are_to_be_however_many_wait(drifting: Any) -> None:
    """70 workers, whose updates all wait for one commit."""
    lines = drifting(tiny(cluster={"regions": [{"workers": [1.0] * 70}]}, budget={"local_steps": 140}), probed=1.0)
    assert [line["probe"]["staleness_error"] for line in lines] == [0.0] * 70


class Dropping:
    """Probes of a run in which every update is dropped as soon as the next one comes."""

    lossless = True

    def __init__(self) -> None:
        self.latest = -1

    def remember(self, wanted: Any) -> Any:
        return self.recall

    def recall(self, update: Any) -> dict[str, Any]:
        self.latest = update.id
        return {}

    def outstanding(self, id: int) -> bool:
        return id == self.latest

    def job(self, update: Any) -> Any:
        return Job(update.id, update.worker, update.start, update.steps, 0, *update.samples, 0, 0.0)


def test_what_is_dropped_is_not_kept() -> None:
    layout = Layout({"theta": (1,)})
    probing, probes = Probing(1.0, 0, 1, False), Dropping()
    assert probing.prepare(probes, layout)  # type: ignore[arg-type]
    params = Params(layout, torch.zeros(1))
    for id in range(5):
        probing.update(Update(id, 0, 0, params, params, 1, 0.0, 1.0, 0, (0, 1), 0, (), (), (0.0, 1.0)))
        assert list(probing.waiting) == [id]
