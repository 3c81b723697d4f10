"""Published claims: their grids are runs, and what is claimed of them can be judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from benchmarks.claims.claim import PAPERS, Claim, claims
from halos.compare.groups import grouped
from halos.config.config import resolved
from halos.reading.run import RunRecords
from halos.run.lifecycle import run
from halos.sweep.cells import Cells
from halos.sweep.grid import asked
from halos.testing import tiny

GRIDS = sorted(path for path in PAPERS.rglob("*.yaml") if "axes" in yaml.safe_load(path.read_text(encoding="utf-8")))
CLAIMS = claims()
QUIET: dict[str, Any] = {"progress": False, "tensorboard": False, "trace": False}


def name(path: Path) -> str:
    return str(path.relative_to(PAPERS))


@pytest.mark.parametrize("path", GRIDS, ids=name)
def test_every_grid_lists_its_cells_and_its_first_one_runs_a_moment(path: Path, tmp_path: Path) -> None:
    grid = asked([str(path)], ["executor.name=timing", "budget.local_steps=1"])
    cells = Cells(tmp_path).made(grid.cells())
    assert len(cells) == len({str(cell) for cell in cells}) > 1
    summary, _ = run(cells[0].config, cells[0].plugins)
    assert summary["finished"] is True
    assert summary["local_steps"] >= 1


@pytest.mark.parametrize("path", dict.fromkeys(claim.grid for claim in CLAIMS), ids=name)
def test_claims_are_of_groups_that_a_comparison_of_their_sweep_has(path: Path) -> None:
    cells = asked([str(path)], []).cells()
    runs = [
        SimpleNamespace(labels=cell.labels, config={"seed": cell.labels.get("seed", 0)}, folder=path) for cell in cells
    ]
    groups = {group.label: list(group.runs) for group in grouped(cast("list[RunRecords]", runs))[0]}
    for claim in CLAIMS:
        if claim.grid == path:
            named = {claim.baseline, *(group for check in claim.checks for group in (check.of, check.other))}
            assert named - {None} <= {*groups}, claim.id
            for check in claim.checks:
                assert check.other is None or groups[check.of] == groups[check.other], "pairs are of the same seed"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_bounds_leave_something_out_and_something_in(claim: Claim) -> None:
    assert claim.checks
    for low, high in (check.between for check in claim.checks):
        assert (low, high) != (None, None)
        assert low is None or high is None or low <= high


def test_claims_have_names_of_their_own() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


def test_how_much_the_loss_of_one_model_is_above_that_of_another(tmp_path: Path) -> None:
    """As in tests/sim/test_evaluations.py: at the end the model is at 0.5339, the workers at 0.3439 and 0.38."""
    sections = tiny(
        model={"size": 1, "dtype": "float64"},  # the loss is ½ (1 − θ)²
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        policy={"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}},
        budget={"local_steps": 6},
        evaluate={"every_seconds": 3.0, "of": ["global", "workers", "first_worker"]},
        observers={**QUIET, "extra": {"above": {}}},
        out=str(tmp_path / "run"),
    )
    summary, _ = run(*resolved(sections, [str(PAPERS / "2501.18512/above.py")]))
    above = summary["observers"]["above"]
    # Half of 0.6561² − 0.4661², 0.63805² − 0.4661² and 0.6561² − 0.63805².
    assert above["first_worker"]["global"] == pytest.approx(0.1066090, abs=1e-7)
    assert above["workers"]["global"] == pytest.approx(0.0949293, abs=1e-7)
    assert above["first_worker"]["workers"] == pytest.approx(0.0116797, abs=1e-7)
    assert above["global"]["workers"] == -above["workers"]["global"]
