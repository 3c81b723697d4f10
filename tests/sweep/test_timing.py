"""Which cells no other beats, by what a run without training knows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from halos.errors import UserError
from halos.run.cli import main
from halos.sweep.folder import summary
from halos.sweep.timing import MEASURES, front, pair
from tests.sweep.small import cells, tiny


def came(seconds: float, sent: int, staleness: float | None = 0.0) -> dict[str, Any]:
    return {
        "simulated_seconds": seconds,
        "bytes": {"0->1": sent, "1->0": 5},
        "staleness": {"end_to_end": {"mean": staleness}},
    }


def test_seeds_are_averaged_and_who_is_worse_in_both_is_beaten(tmp_path: Path) -> None:
    several = cells(tiny(tmp_path), "steps.base=2,4,8,16", "seed=0,1", out=tmp_path)
    told = dict(zip([cell.digest for cell in several], [
        came(10, 95), came(30, 95),  # 20 s, 100 B
        came(10, 195), came(20, 195),  # 15 s, 200 B: faster
        came(21, 95), came(21, 95),  # 21 s, 100 B: slower than the first, and no less is sent
        came(15, 195), came(15, 195),  # as the second: neither beats the other
    ], strict=True))  # fmt: skip
    groups = front(several, told, ("simulated_seconds", "bytes"))
    assert [(each.values, each.beaten_by) for each in groups] == [
        ((20.0, 100.0), None), ((15.0, 200.0), None), ((21.0, 100.0), "steps.base 2"), ((15.0, 200.0), None)
    ]  # fmt: skip
    assert [[cell.labels["seed"] for cell in each.cells] for each in groups] == [[0, 1]] * 4


def test_what_is_better_if_there_is_more_of_it_counts_so(tmp_path: Path) -> None:
    several = cells(tiny(tmp_path), "steps.base=2,4", out=tmp_path)
    told = {
        cell.digest: {"goodput": goodput, "simulated_seconds": 1.0}
        for cell, goodput in zip(several, (0.5, 0.9), strict=True)
    }
    groups = front(several, told, ("goodput", "simulated_seconds"))
    assert [each.beaten_by for each in groups] == ["steps.base 4", None]


def test_who_could_not_be_timed_is_left_out_and_who_has_no_such_number_stays(tmp_path: Path) -> None:
    several = cells(tiny(tmp_path), "steps.base=2,4,8", "seed=0,1", out=tmp_path)
    told = {cell.digest: came(1, 0) for cell in several[:1]}  # its other seed failed
    told |= {cell.digest: came(9, 9, None) for cell in several[2:4]}
    told |= {cell.digest: came(1, 1, 1.0) for cell in several[4:]}
    groups = front(several, told, ("simulated_seconds", "staleness"))
    assert [(each.label, each.beaten_by) for each in groups] == [("steps.base 4", None), ("steps.base 8", None)]
    assert math.isnan(groups[0].values[1])


def test_every_measure_is_in_the_summary_of_a_run_without_training(tmp_path: Path) -> None:
    assert main([tiny(tmp_path), "executor.name=timing", f"out={tmp_path / 'run'}"]) == 0
    told = summary(tmp_path / "run")
    assert told is not None
    # Two workers of 1 s a step take 2 steps a round; 8 are committed after two rounds, of 8 tokens a step.
    known = {name: read(told) for name, (read, _) in MEASURES.items()}
    assert known == {
        "simulated_seconds": 4.0,
        "bytes": known["bytes"],
        "dollars": None,
        "tokens": 64,
        "staleness": 0.0,
        "goodput": 1.0,
        "compute": 1.0,
        "transfer": 0.0,
        "idle": 0.0,
    }


@pytest.mark.parametrize(("text", "said"), [
    ("loss,bytes", "'loss' is nothing that timing tells; there are: simulated_seconds, bytes"),
    ("byte,goodput", "'byte' is nothing that timing tells (did you mean 'bytes'?)"),
    ("bytes", "'bytes' is not two measures, A,B"),
    ("bytes,bytes", "'bytes,bytes' is not two measures, A,B"),
    ("bytes,idle,goodput", "'bytes,idle,goodput' is not two measures, A,B"),
])  # fmt: skip
def test_a_measure_that_timing_does_not_know_is_a_mistake(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        pair(text)
    assert str(caught.value).startswith(f"--timing-first: {said}")
    assert pair(" bytes, goodput") == ("bytes", "goodput")
