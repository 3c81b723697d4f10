"""Odd environments and settings, event by event, and `results.pt` of all four algorithms (tests/golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest

from halos.observers.results import Results
from tests.golden.recorded import GOLDEN, POLICIES, check, events, golden, replay

ODD = sorted(path.name.removesuffix(".json.gz") for path in GOLDEN.glob("odd_*.json.gz"))


def test_the_odd_environments_cover_all_policies() -> None:
    assert {golden(name)["algo"] for name in ODD} == set(POLICIES)


@pytest.mark.parametrize("name", ODD)
def test_every_event_of_the_odd_environment_happens_in_ours(name: str) -> None:
    run = golden(name)
    ours = replay(run)
    check(run, ours)
    kinds = {"worker_pgrads": "ps_id", "lps_recv_global": "lps_id", "gps_recv": None}
    if run["algo"] == "halos":  # the order of commits over all servers, too
        expected = [e for e in run["events"] if e["type"] in kinds]
        named = [f"local-{e[key]}" if (key := kinds[e["type"]]) else "global" for e in expected]
        assert [commit.server for commit in ours.commits] == named
    elif run["algo"].startswith("diloco"):
        reductions = [each.time - each.start_time for each in ours.transfers if each.kind == "all_reduce"]
        assert reductions == pytest.approx([run["per_round_comm_time"] / 1e3] * len(events(run, "round")), rel=1e-9)


@pytest.mark.parametrize("name", [f"stub_{policy}_example" for policy in POLICIES] + ODD)
def test_results_are_the_histories_of_the_run(name: str) -> None:
    run = golden(name)
    ours, observer = replay(run), Results()
    for commit in ours.commits:
        observer.on_commit(commit)
    for evaluation in ours.evaluations:
        observer.on_evaluate(evaluation)
    found, expected = observer.histories(), run["histories_at_done"]
    assert found["num_steps_history"].tolist() == np.cumsum(expected["num_local_steps_history"]).tolist()
    for key in ("loss_history", "loss_over_time_history"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-9)
    np.testing.assert_allclose(found["time_history"], expected["time_history"], rtol=1e-6)
    count = len(expected["val_steps_history"])
    assert len(found["val_steps_history"]) - count in (0, 1)  # ours evaluates at the end, too
    assert found["val_steps_history"][:count].tolist() == expected["val_steps_history"]
    np.testing.assert_allclose(found["val_time_history"][:count], expected["val_time_history"], rtol=1e-6)
    np.testing.assert_allclose(found["val_loss_history"][:count], expected["val_loss_history"], rtol=1e-9)
