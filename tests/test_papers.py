"""Published claims: their grids are runs, and what is claimed of them can be judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from halos.compare.groups import grouped
from halos.config.config import resolved
from halos.reading.run import RunRecords
from halos.run.lifecycle import run
from halos.sweep.cells import Cells
from halos.sweep.grid import KEYS, asked
from halos.testing import tiny

PAPERS = Path(__file__).parents[1] / "configs/papers"
YAML = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(PAPERS.rglob("*.yaml"))}
CLAIMS = [path for path in YAML if path.name == "claims.yaml"]
GRIDS = [path for path, found in YAML.items() if "axes" in found]
CLAIM = ["name", "says", "where", "published", "known", "sweep", "ours", "checks"]
SWEPT = dict.fromkeys(path.parent / claim["sweep"] for path in CLAIMS for claim in YAML[path]["claims"])
QUIET: dict[str, Any] = {"progress": False, "tensorboard": False, "trace": False}


def name(path: Path) -> str:
    return str(path.relative_to(PAPERS))


@pytest.mark.parametrize("path", GRIDS, ids=name)
def test_every_grid_lists_its_cells_and_its_first_one_runs_a_moment(path: Path, tmp_path: Path) -> None:
    assert set(YAML[path]) <= set(KEYS)
    grid = asked([str(path)], ["executor.name=timing", "budget.local_steps=1"])
    cells = Cells(tmp_path).made(grid.cells())
    assert len(cells) == len({str(cell) for cell in cells}) > 1
    summary, _ = run(cells[0].config, cells[0].plugins)
    assert summary["finished"] is True
    assert summary["local_steps"] >= 1


@pytest.mark.parametrize("path", CLAIMS, ids=name)
def test_claims_say_all_that_their_row_and_their_verdict_need_and_nothing_else(path: Path) -> None:
    page = YAML[path]
    assert list(page) == ["paper", "claims"]
    names = [claim["name"] for claim in page["claims"]]
    assert len(names) == len({*names}) > 0
    for claim in page["claims"]:
        assert [key for key in claim if key != "baseline"] == CLAIM, claim["name"]
        assert claim["known"] in ("read", "second-hand")
        assert claim["checks"]
        for check in claim["checks"]:
            assert {"measure", "of", "between"} <= {*check} <= {"measure", "of", "minus", "over", "between"}
            assert not {"minus", "over"} <= {*check}
            low, high = check["between"]
            assert low is None or high is None or low < high
            assert (low, high) != (None, None)


@pytest.mark.parametrize("path", SWEPT, ids=name)
def test_the_groups_of_claims_are_those_that_a_comparison_of_the_sweep_has(path: Path) -> None:
    cells = asked([str(path)], []).cells()
    runs = [SimpleNamespace(labels=cell.labels, config={"seed": cell.labels["seed"]}, folder=path) for cell in cells]
    groups = {group.label: group.runs for group in grouped(cast("list[RunRecords]", runs))[0]}
    for claim in YAML[path.parent / "claims.yaml"]["claims"]:
        if claim["sweep"] == path.name:
            named = [check[key] for check in claim["checks"] for key in ("of", "minus", "over") if key in check]
            named += [claim["baseline"]] if "baseline" in claim else []
            assert {*named} <= {*groups}, claim["name"]
    assert len({tuple(runs) for runs in groups.values()}) == 1  # the same seeds, for pairs


def test_how_much_other_models_losses_are_above_the_global_one_s(tmp_path: Path) -> None:
    """As in tests/sim/test_evaluations.py: at the end the model is at 0.5339, the workers at 0.3439 and 0.38."""
    sections = tiny(
        model={"size": 1, "dtype": "float64"},  # the loss is ½ (1 − θ)²
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        policy={"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}},
        budget={"local_steps": 6},
        evaluate={"every_seconds": 3.0, "of": ["global", "workers", "first_worker"]},
        observers={**QUIET, "extra": {"above_global": {}}},
        out=str(tmp_path / "run"),
    )
    summary, _ = run(*resolved(sections, [str(PAPERS / "2501.18512/above_global.py")]))
    losses = {of: 0.5 * (1 - theta) ** 2 for of, theta in {"workers": 0.36195, "first_worker": 0.3439}.items()}
    above = {of: pytest.approx(loss - 0.5 * (1 - 0.5339) ** 2, rel=1e-6) for of, loss in losses.items()}
    assert summary["observers"]["above_global"] == above
