"""The recorded runs of the original simulator (tests/golden/README.md), event by event and step by step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halos.run.cli import main
from halos.testing import record
from tests.golden.recorded import (
    GOLDEN,
    POLICIES,
    check,
    distances,
    golden,
    loss_differences,
    replay,
    trained,
    update_steps,
)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_event_of_the_recorded_timing_run_happens_in_ours(policy: str) -> None:
    run = golden(f"stub_{policy}_example")
    arrivals = [event for event in run["events"] if event["type"] in ("round", "worker_pgrads", "gps_recv")]
    assert all("param_l2" in event for event in arrivals)
    check(run, replay(run))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_every_event_of_the_full_length_timeline_happens_in_ours(policy: str) -> None:
    run = golden(f"paper_{policy}")
    check(run, replay(run))


@pytest.mark.parametrize("policy", POLICIES)
def test_analytic_parameters_agree_to_1e9_wherever_they_were_recorded(policy: str) -> None:
    run = golden(f"stub_{policy}_example")
    ours = replay(run)
    archive = np.load(GOLDEN / f"stub_{policy}_example_params.npz")
    compared = 0
    for tag in sorted({key.split(":")[0] for key in archive.files if key.startswith("u")}):
        params = ours.global_commits[int(tag[1:]) - 1].params.tensors()
        for name in ("a", "b"):
            np.testing.assert_allclose(params[name].numpy(), archive[f"{tag}:{name}"], rtol=1e-9, atol=1e-12)
            compared += 1
    assert compared >= 8


@pytest.mark.long
@pytest.mark.parametrize(
    ("policy", "updates"), [("diloco", 1), ("diloco_dynupd", 1), ("async_local_sgd", 10), ("halos", 2)]
)
def test_the_first_trained_updates_agree_with_the_recorded_ones(policy: str, updates: int) -> None:
    """The whole runs are compared by `python -m benchmarks.upstream_training` (minutes)."""
    run = golden(policy)
    sections = trained(run) | {"budget": {"local_steps": update_steps(run, updates)}}
    ours = record(sections)
    assert distances(policy, ours)[updates] <= 1e-4
    differences = loss_differences(run, ours)
    assert len(differences) >= 25
    assert max(differences) <= 1e-3


@pytest.mark.parametrize(
    ("policy", "hours", "updates"),
    [("diloco", 5.223, 192), ("diloco_dynupd", 3.506, 303), ("async_local_sgd", 1.138, 4875), ("halos", 0.676, 396)],
)
def test_the_shipped_configs_give_the_published_timeline(
    policy: str, hours: float, updates: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[2] / f"configs/upstream/{policy}.yaml"
    quiet = ["observers.progress=false", "observers.tensorboard=false", "observers.trace=false"]
    assert main([str(config), "executor.name=timing", f"out={tmp_path / 'run'}", *quiet]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert round(summary["simulated_seconds"] / 3600, 3) == hours
    assert summary["commits"] == updates
    if policy == "async_local_sgd":
        assert (round(summary["staleness"]["hop"]["mean"], 2), summary["staleness"]["hop"]["max"]) == (14.97, 39)
    if policy == "halos":
        assert summary["updates"] == 17622
        assert round(summary["policy_report"]["unsent_share"], 2) == 0.28
    assert capsys.readouterr().out
