"""Every built-in policy under every kind of fault."""

from __future__ import annotations

from typing import Any

import pytest

from halos.testing import record, tiny
from halos.testing.recording import Recording
from halos.testing.resuming import problem
from halos.testing.witness import everything, first_difference, timeline

KINDS = {
    "crashes": {"name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002},
    "gone and again": {
        "name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002, "detection_seconds": 1.5,
        "samples": "again", "inner_state": "gone",
    },
    "outages": {
        "name": "outages", "detection_seconds": 3.0,
        "at": [{"region": 1, "at_seconds": 20, "seconds": 30}, {"region": 0, "at_seconds": 60, "seconds": 7}],
    },
    "links": {
        "name": "links",
        "at": [
            {"src": 0, "dst": 1, "at_seconds": 10, "seconds": 9},
            {"src": 1, "dst": 0, "at_seconds": 30, "share": 0.5},
        ],
    },
    "message loss": {"name": "message_loss", "probability": 0.2, "detection_seconds": 0.5},
    "several": {
        "name": "several", "detection_seconds": 0.25, "samples": "again", "inner_state": "gone",
        "of": [
            {"name": "crashes", "between_failures_hours": 0.02, "to_repair_hours": 0.001},
            {"name": "message_loss", "probability": 0.1},
            {"name": "links", "at": [{"src": 0, "dst": 1, "at_seconds": 15, "seconds": 20, "share": 0.3}]},
        ],
    },
}  # fmt: skip


POLICIES: dict[str, dict[str, Any]] = {
    "diloco": {"name": "diloco"},
    "async_local_sgd": {"name": "async_local_sgd"},
    "grace": {"name": "async_local_sgd", "grace_seconds": 1.5},
    "halos": {"name": "halos", "local_updates": 3},
    "keep_local": {"name": "halos", "local_updates": 3, "rebase": "keep_local"},
}


def under(policy: str, kind: str, **changes: Any) -> dict[str, Any]:
    cluster = {"regions": [{"workers": [1.0, 0.6]}, {"workers": [0.8, 0.9]}], "step_time_ms": 1000.0}
    return tiny(
        cluster=cluster, network={"bandwidth_gbps": 1e-7}, policy=POLICIES[policy], faults=KINDS[kind],
        budget={"local_steps": 200}, data={"shards": "by_region"}, **changes,
    )  # fmt: skip


def adds_up(run: Recording) -> bool:
    """What was dispatched has arrived, is lost, or is under way."""
    sim = run.simulation
    arrived = sum(update.steps for update in run.updates)
    return arrived == sim.ledger.trained and (
        sim.ledger.trained == sim.ledger.committed + sim.ledger.dropped + sim.ledger.in_flight
        and sim.jobs.count == len(run.updates) + sim.losses.jobs + len(sim.jobs.running)
        and sim.jobs.dispatched - sim.ledger.trained - sim.ledger.lost == 2 * len(sim.jobs.running)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_built_in_policy_spends_its_budget_under_every_kind_of_fault(policy: str, kind: str) -> None:
    run = record(under(policy, kind))
    assert run.simulation.ledger.committed >= 200
    assert adds_up(run)
    if kind != "links" or policy != "diloco":  # whose collectives only wait for links
        assert sum(run.simulation.faults.lost().values()) > 0
    committed = [update.id for commit in run.global_commits for share in commit.shares for update in share.updates]
    assert len(committed) == len({*committed})
    assert first_difference(everything(run), everything(record(under(policy, kind)))) is None
    hollow = record(under(policy, kind, executor={"name": "timing"}))
    assert first_difference(timeline(run), timeline(hollow)) is None


@pytest.mark.parametrize("policy", ["diloco", "halos"])
def test_a_run_with_faults_that_is_cut_and_resumed_is_the_run_itself(policy: str) -> None:
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.0}
    sections = under(policy, "several")
    sections = sections | {"train": sections["train"] | {"optimizer": optimizer}}
    assert problem(sections, cuts=4) is None
