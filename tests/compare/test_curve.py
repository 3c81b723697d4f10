"""What is read off the evaluations of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from halos.compare.curve import Curve
from halos.reading.run import read
from tests.compare.made_runs import BATCH, Points, write_run


def curve(folder: Path, points: Points, *transfers: tuple[float, int]) -> Curve:
    return Curve.of(read(write_run(folder / "run", points, transfers=transfers)))


def test_losses_between_two_evaluations_lie_on_the_straight_line(tmp_path: Path) -> None:
    found = curve(tmp_path, [(0.0, 0, 5.0), (10.0, 100, 3.0), (30.0, 300, 2.0)])
    assert [found.at("steps", steps) for steps in (0, 50, 100, 150, 300)] == [5.0, 4.0, 3.0, 2.75, 2.0]
    assert found.at("tokens", 150 * BATCH) == 2.75
    assert math.isnan(found.at("steps", 301))
    assert (found.reach("steps"), found.reach("tokens"), found.reach("seconds")) == (300, 3000, 30.0)


def test_of_several_evaluations_after_the_same_steps_the_last_counts(tmp_path: Path) -> None:
    """A delayed method's last commits come when all has been trained."""
    found = curve(tmp_path, [(0.0, 0, 5.0), (10.0, 100, 3.0), (20.0, 100, 2.0)])
    assert (found.at("steps", 100), found.at("steps", 50)) == (2.0, 3.5)


def test_at_a_moment_one_has_the_model_evaluated_last(tmp_path: Path) -> None:
    found = curve(tmp_path, [(0.0, 0, 5.0), (10.0, 100, 3.0), (30.0, 300, 2.0)])
    assert [found.at("seconds", time) for time in (0.0, 9.9, 10.0, 29.0, 1000.0)] == [5.0, 5.0, 3.0, 3.0, 2.0]
    assert (found.first(3.5), found.first(2.0), found.first(1.9)) == (1, 2, None)
    assert (found.when("steps", 101), found.when("steps", 100)) == (30.0, 10.0)
    assert math.isnan(found.when("steps", 301))


def test_bytes_are_those_that_had_arrived_and_belong_to_the_model_evaluated_last(tmp_path: Path) -> None:
    """Reported out of order, as pulls are: 7 at 4 s, 5 at 10 s (with the evaluation), 9 at 12 s."""
    found = curve(tmp_path, [(0.0, 0, 5.0), (10.0, 100, 3.0), (30.0, 300, 2.0)], (10.0, 5), (4.0, 7), (12.0, 9))
    assert found.spent["bytes"].tolist() == [0.0, 12.0, 21.0]
    assert [found.at("bytes", amount) for amount in (11, 12, 20, 21)] == [5.0, 3.0, 3.0, 2.0]


def test_bytes_are_unknown_where_transfers_are_not_recorded(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [(0.0, 0, 5.0)], config={"observers": {"records": "commits"}})
    found = Curve.of(read(folder))
    assert math.isnan(found.reach("bytes")) and math.isnan(found.at("bytes", 1))


def test_other_models_other_sets_and_losses_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [(0.0, 0, 5.0), (10.0, 100, None)])
    (line, *_) = (folder / "evaluations.jsonl").read_text().splitlines()
    others = [{**json.loads(line), "loss": 1.0, **other} for other in ({"of": "workers"}, {"set": "code"})]
    with (folder / "evaluations.jsonl").open("a") as file:
        file.writelines(json.dumps(other) + "\n" for other in others)
    assert Curve.of(read(folder)).loss.tolist() == [5.0]


@pytest.mark.parametrize("of", ["tokens", "steps", "seconds", "bytes"])
def test_nothing_evaluated_is_nothing_known(tmp_path: Path, of: str) -> None:
    found = curve(tmp_path, [])
    assert len(found) == 0 and math.isnan(found.reach(of)) and math.isnan(found.at(of, 0.0))
