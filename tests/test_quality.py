"""The quality study: what is read off its runs, checked by hand; and that its pages are those of its raw results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.quality import tables
from benchmarks.quality.__main__ import main as command
from benchmarks.quality.curves import Curve, Spread, steps_all_reached
from benchmarks.quality.runs import Results, execute
from benchmarks.quality.study import METHODS, PARTS, Method, Part, runs, written
from halos.run.cli import main as halos

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Reading off curves


def test_losses_between_two_evaluations_lie_on_the_straight_line() -> None:
    curve = Curve(time=[0.0, 10.0, 30.0], trained_steps=[0, 100, 300], loss=[5.0, 3.0, 2.0])
    assert [curve.at_steps(steps) for steps in (0, 50, 100, 150, 300)] == [5.0, 4.0, 3.0, 2.75, 2.0]


def test_of_several_evaluations_after_the_same_steps_the_last_counts() -> None:
    """A delayed method's last commits come when all has been trained."""
    curve = Curve(time=[0.0, 10.0, 20.0], trained_steps=[0, 100, 100], loss=[5.0, 3.0, 2.0])
    assert curve.at_steps(100) == 2.0
    assert curve.at_steps(50) == 3.5


def test_what_was_not_trained_cannot_be_read_off() -> None:
    curve = Curve(time=[0.0, 10.0], trained_steps=[0, 100], loss=[5.0, 3.0])
    with pytest.raises(ValueError, match="101 steps are not among the 0 to 100"):
        curve.at_steps(101)
    assert steps_all_reached([curve, Curve([0.0, 5.0], [0, 96], [5.0, 4.0])]) == 96


def test_at_a_moment_one_has_the_model_evaluated_last() -> None:
    curve = Curve(time=[0.0, 10.0, 30.0], trained_steps=[0, 100, 300], loss=[5.0, 3.0, 2.0])
    assert [curve.at_time(time) for time in (0.0, 9.9, 10.0, 29.0, 1000.0)] == [5.0, 5.0, 3.0, 3.0, 2.0]
    assert (curve.time_to(3.5), curve.time_to(2.0), curve.time_to(1.9)) == (10.0, 30.0, None)
    assert curve.time_at_steps(101) == 30.0


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert Spread.of([1.0, 2.0, 3.0]).show(".2f") == "2.00 ± 1.00"
    assert Spread.of([2.0, 2.5]).show("+.3f") == "+2.250 ± 0.354"  # half a unit over the root of two
    assert Spread.of([2.0]).show() == "2.000"


# Tables


def part(*names: str) -> Part:
    return Part("small", tuple(Method(name, name.upper(), Path()) for name in names), seeds=(1, 2))


def result(time: list[float], steps: list[int], loss: list[float], finished: object = True) -> dict[str, Any]:
    return {"time": time, "trained_steps": steps, "loss": loss, "finished": finished}


RAW = {
    "small/diloco/1": result([0.0, 10.0, 40.0], [0, 200, 400], [4.0, 3.0, 2.0]),
    "small/diloco/2": result([0.0, 10.0, 40.0], [0, 200, 400], [6.0, 5.0, 4.0]),
    "small/quick/1": result([0.0, 5.0, 10.0], [0, 200, 500], [4.0, 3.5, 2.3]),  # 2.7 after 400 steps
    "small/quick/2": result([0.0, 5.0, 10.0], [0, 200, 500], [6.0, 5.5, 4.3]),  # 4.7
    "small/lost/1": result([0.0], [0], [4.0], finished="diverged: training loss became nan"),
    "small/lost/2": result([0.0, 5.0, 10.0], [0, 200, 500], [6.0, 5.5, 4.3]),
}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_differences_are_taken_seed_by_seed() -> None:
    """The seeds are two nats apart, the methods 0.5 and 0.7 for each seed: a spread of nothing."""
    heads, _, diloco, quick = cells(tables.equal_tokens(part("diloco", "quick", "lost"), RAW))
    assert heads[1:4] == ["100 steps", "200 steps", "400 steps"]
    assert diloco == ["DILOCO", "4.500 ± 1.414", "4.000 ± 1.414", "3.000 ± 1.414", "–", "–"]
    assert quick == ["QUICK", "4.750 ± 1.414", "4.500 ± 1.414", "3.700 ± 1.414", "+0.500 ± 0.000", "+0.700 ± 0.000"]


def test_a_method_that_has_ended_keeps_its_last_model_and_is_in_brackets() -> None:
    heads, _, diloco, quick = cells(tables.equal_time(part("diloco", "quick"), RAW, at=["diloco"]))
    assert heads == ["", "has trained 400 steps after", "at 10 s", "at 40 s"]
    assert diloco == ["DILOCO", "40 s", "4.000 ± 1.414", "3.000 ± 1.414"]
    assert quick == ["QUICK", "10 s", "3.300 ± 1.414", "(3.300 ± 1.414)"]


def test_targets_are_those_of_the_same_seed_and_who_missed_them_is_said() -> None:
    """DiLoCo ends at 2 and at 4: a margin of 1 is a target of 3 and of 5, one of 0.3 of 2.3 and 4.3."""
    worse = {**RAW, "small/quick/2": result([0.0, 5.0, 20.0], [0, 200, 500], [6.0, 5.5, 4.4])}
    heads, _, diloco, quick = cells(tables.time_to(part("diloco", "quick"), worse, [1.0, 0.3, 0.1]))
    assert heads[1] == "DILOCO's final + 1"
    assert diloco == ["DILOCO", "10 ± 0 s", "40 ± 0 s", "40 ± 0 s"]
    assert quick == ["QUICK", "15 ± 7 s", "10 s (1 of 2 seeds)", "not reached"]


def test_only_what_is_between_its_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table one -->\nold\n<!-- end -->\nafter\n<!-- table two -->\n<!-- end -->\n")
    tables.write(page, {"one": "| new |"})
    assert page.read_text() == (
        "before\n<!-- table one -->\n\n| new |\n\n<!-- end -->\nafter\n<!-- table two -->\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no place for the table 'three'"):
        tables.write(page, {"three": ""})


# A study in seconds

TINY = {
    "cluster": {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
    "network": {"bandwidth_gbps": 1.0},
    "model": {"name": "quadratic", "size": 1, "curvature": 1.0, "optimum": 1.0, "dtype": "float64"},
    "data": {"name": "synthetic", "samples": 256, "sequence_length": 4, "validation_samples": 8},
    "train": {
        "batch_size": 1,
        "clip": 0.0,
        "optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
    },
    "steps": {"name": "fixed", "base": 1},
    "policy": {"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}},
    "budget": {"local_steps": 6},
    "evaluate": {"every_local_steps": 2},
    "observers": {"progress": False, "tensorboard": False, "trace": False},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Part:
    """Two workers, three rounds; a local step halves the distance to the optimum: losses 1/2, 1/8, 1/32, 1/128."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"extends": "base.yaml", "name": "tiny"}))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))
    config = tmp_path / "tiny.yaml"
    methods = (
        Method("diloco", "DiLoCo", config),
        Method("half", "half as far", config, ("policy.outer.lr=0.5",)),  # of each round: distances 1, 3/4, 9/16, 27/64
    )
    return Part("tiny", methods, (1,))


def test_a_study_runs_gathers_and_is_not_repeated(tiny: Part, tmp_path: Path) -> None:
    results = Results(tmp_path / "quality.json")
    assert execute(runs(tiny), results, tmp_path / "runs", at_once=2) == []
    saved = json.loads(results.path.read_text())
    assert sorted(saved) == ["tiny/diloco/1", "tiny/half/1"]
    assert saved["tiny/diloco/1"]["loss"] == pytest.approx([1 / 2, 1 / 8, 1 / 32, 1 / 128], abs=5e-6)
    assert saved["tiny/half/1"]["loss"] == pytest.approx([1 / 2, 9 / 32, 81 / 512, 729 / 8192], abs=5e-6)
    assert saved["tiny/diloco/1"]["trained_steps"] == [0, 2, 4, 6]
    assert saved["tiny/diloco/1"]["time"] == [0.0, 1.0, 2.0, 3.0]  # 8 bytes take 64 ns
    _, _, diloco, half = cells(tables.equal_tokens(tiny, saved))
    assert diloco[3] == "0.008"
    assert half[-1] == "+0.081"  # 729/8192 − 1/128

    shutil.rmtree(tmp_path / "runs")
    again = Results(results.path)
    assert all(again.has(run) for run in runs(tiny))
    assert execute(runs(tiny), again, tmp_path / "runs", at_once=2) == []
    assert not (tmp_path / "runs").exists(), "nothing was run"


def test_another_setting_is_another_result(tiny: Part, tmp_path: Path) -> None:
    (before,) = runs(tiny, ["diloco"])
    same = before.settings
    (tmp_path / "base.yaml").write_text("# a comment\n" + yaml.safe_dump(TINY))
    assert before.settings == same
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**TINY, "budget": {"local_steps": 8}}))
    assert before.settings != same
    (other,) = runs(tiny, ["half"])
    assert other.settings != before.settings


def test_mistakes_are_reported_and_divergence_is_a_result(tiny: Part, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    wrong = Method("wrong", "wrong", config, ("policy.outer.lrr=1",))
    wild = Method("wild", "wild", config, ("train.optimizer.lr=1e30",))
    results = Results(tmp_path / "quality.json")
    (failure,) = execute(runs(Part("tiny", (wrong, wild), (1,))), results, tmp_path / "runs", at_once=2)
    assert failure.startswith("tiny/wrong/1: error: policy.outer.lrr")
    assert list(results.runs) == ["tiny/wild/1"]
    assert results.runs["tiny/wild/1"]["finished"].startswith("diverged: training loss became")


# The study as it is recorded


@pytest.mark.parametrize(
    "config", sorted({each.config for part in PARTS for each in part.methods}), ids=lambda path: path.stem
)
def test_every_config_of_the_study_runs_a_round(config: Path, tmp_path: Path) -> None:
    changes = ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}"]
    assert halos([str(config), *changes]) == 0


def test_every_run_of_the_study_is_recorded_as_it_is_set_today() -> None:
    results = Results(DOCS / "results/quality.json")
    everything = [run for part in PARTS for run in runs(part)]
    assert [run.name for run in everything if not results.has(run)] == []
    assert len({each["data"]["hash"] for each in results.runs.values()}) == 1, "all of one text"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_is_compared_with_the_best_value_that_was_tried(method: Method) -> None:
    raw = Results(DOCS / "results/quality.json").runs
    losses = {value: raw[f"tuning/{method.name}@{value:g}/0"]["loss"][-1] for value in method.tried}
    used: Any = written(method.config)
    for key in method.tuned.split("."):
        used = used[key]
    assert losses[used] == min(losses.values())


def test_the_pages_tables_are_those_of_the_raw_results(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    shutil.copy(DOCS / "results.md", tmp_path)
    shutil.copy(DOCS / "results/quality.json", tmp_path / "results")
    assert command(["--report-only", "--docs", str(tmp_path)]) == 0
    assert (tmp_path / "results.md").read_text() == (DOCS / "results.md").read_text()
