"""The built-in sync policies: rounds and windows worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError
from halos.policies.async_local_sgd import AsyncLocalSGD
from halos.policies.halos import Halos
from halos.testing import record, tiny

DELAYED = {"name": "delayed_nesterov", "lr": 1.0, "beta": 0.9, "buffer": 1}


def speeds(*regions: list[float]) -> dict[str, Any]:
    return {"regions": [{"workers": workers} for workers in regions], "step_time_ms": 1000}


def test_diloco_by_hand() -> None:
    """Two workers at θ = 0, optimum 1, lr ½, two steps: each ends at ¾, Δ = −¾; Nesterov(½, ½)."""
    sections = tiny(
        train={"optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 0.0}},
        policy={"name": "diloco", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}},
        model={"dtype": "float64"},
    )
    run = record(sections)
    # v = −¾, θ = ½ (¾ + ½ ¾) = 9/16. Then Δ = −¾ · 7/16 = −21/64, v = −3/8 − 21/64 = −45/64,
    # θ = 9/16 + ½ (21/64 + 45/128) = 9/16 + 87/256 = 231/256.
    assert [commit.params.flat.tolist() for commit in run.commits] == [[9 / 16] * 2, [231 / 256] * 2]  # type: ignore[union-attr]


def test_a_round_lasts_as_long_as_its_slowest_worker() -> None:
    run = record(tiny(cluster=speeds([4, 1]), budget={"local_steps": 12}, executor={"name": "timing"}))
    assert [commit.time for commit in run.commits] == [8.0, 16.0, 24.0]


def test_without_grace_an_asynchronous_worker_restarts_at_once() -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED}
    run = record(tiny(cluster=speeds([2, 1]), policy=policy, budget={"local_steps": 12}))
    # Two steps take 2 s and 4 s; at 4 s both arrive, the slow one's event having been scheduled first.
    assert [(update.worker, update.start_time, update.time) for update in run.updates] == [
        (0, 0.0, 2.0),
        (1, 0.0, 4.0),
        (0, 2.0, 4.0),
        (0, 4.0, 6.0),
        (1, 4.0, 8.0),
        (0, 6.0, 8.0),
    ]
    assert [commit.shares[0].staleness for commit in run.commits] == [0, 1, 1, 0, 2, 1]


@pytest.mark.parametrize(
    ("grace", "starts"),
    [
        (0.5, {0: [0, 2.5, 4.5, 7, 9.5], 1: [0, 4.5, 8.5], 2: [0, 8.5]}),  # at 4.5: 0 and 1, at 8.5: 1 and 2
        (1.0, {0: [0, 3, 5, 8], 1: [0, 5, 10], 2: [0, 8]}),  # at 5 s sharp 0 is in the window that closes then
        (2.0, {0: [0, 4, 8], 1: [0, 4, 8], 2: [0, 8]}),  # at 8 s sharp all three are in
        (100.0, {0: [0, 8, 16], 1: [0, 8, 16], 2: [0, 8, 16]}),  # all are in at 8 s: nobody waits for the rest
    ],
)
def test_a_grace_window_counts_from_its_first_arrival_and_restarts_its_workers_together(
    grace: float, starts: dict[int, list[float]]
) -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED, "grace_seconds": grace}
    run = record(tiny(cluster=speeds([4, 2, 1]), policy=policy, steps={"base": 2}, budget={"local_steps": 60}))
    for worker, expected in starts.items():
        mine = [update.start_time for update in run.updates if update.worker == worker]
        assert mine[: len(expected)] == pytest.approx(expected)


def test_workers_of_a_grace_window_restart_from_the_same_model() -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED, "grace_seconds": 100.0}
    run = record(tiny(cluster=speeds([4, 2, 1]), policy=policy, budget={"local_steps": 12}))
    assert [update.start_version for update in run.updates] == [0, 0, 0, 3, 3, 3]
    assert [commit.time for commit in run.commits] == [2.0, 4.0, 8.0, 10.0, 12.0, 16.0]  # each applied at once


HALOS = {
    "name": "halos",
    "outer": {"name": "sgd", "lr": 1.0},
    "local": {"name": "sgd", "lr": 1.0},
    "local_updates": 2,
    "merge_weight": 0.25,
}


def test_halos_credits_updates_that_arrive_during_an_exchange_with_the_next_one() -> None:
    # One worker, an update every 2 s; an exchange (1 s each way to the other region) after every second update.
    run = record(
        tiny(
            cluster=speeds([], [1]),
            network={"bandwidth_gbps": float("inf"), "latency_ms": [[0, 3000], [3000, 0]]},
            policy=HALOS,
            budget={"local_steps": 12},
        )
    )
    # Updates at 2, 4 (sent), 6, 8; at 10 first Θ is back, as scheduled at 7, then an update; at 12 another, sent.
    local = [commit for commit in run.commits if commit.server == "local-0"]
    merges = [commit.time for commit in local if commit.kind == "merge"]
    assert merges[0] == 10.0
    assert [commit.time for commit in run.global_commits] == [7.0, 15.0]
    assert [commit.shares[0].steps for commit in run.global_commits] == [4, 8]
    assert [commit.local_steps for commit in run.global_commits] == [4, 12]
    ledger = run.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (14, 12, 2)


def test_halos_as_published_never_sends_what_it_merged_during_an_exchange_and_says_so() -> None:
    def final(rebase: str) -> Any:
        return record(
            tiny(
                cluster=speeds([], [1]),
                network={"bandwidth_gbps": float("inf"), "latency_ms": [[0, 3000], [3000, 0]]},
                model={"dtype": "float64"},
                policy=HALOS | {"rebase": rebase},
                budget={"local_steps": 12},
            )
        )

    published, kept = final("published"), final("keep_local")
    assert published.config.policy.report() == {"unsent_share": 2 / 7}  # of seven updates, those at 6 and 8 s
    assert kept.config.policy.report() == {"unsent_share": 0.0}
    # x = 1 − θ shrinks by .81 per update, Δ's are differences of x. Sent at 4 s: 1 → .81². Global: x = .81². Local at
    # 10 s: .81⁴, merged: y = ¾ .81⁴ + ¼ .81². The update at 10 s began from .81⁴, the one at 12 s from z. Sent then:
    # y → .81 z, and with keep_local also .81² → .81⁴.
    q = 0.81
    y = 0.75 * q**4 + 0.25 * q**2
    z = y - (q**4 - q**5)
    expected = q**2 - (y - q * z)
    assert 1 - float(published.global_commits[-1].params.flat[0]) == pytest.approx(expected, abs=1e-12)
    assert 1 - float(kept.global_commits[-1].params.flat[0]) == pytest.approx(expected - (q**2 - q**4), abs=1e-12)


def test_halos_groups_consecutive_workers_or_takes_one_server_per_region_with_workers() -> None:
    by_region = record(tiny(cluster=speeds([1, 1], [], [1]), policy=HALOS | {"local_updates": 1}))
    assert {commit.server for commit in by_region.commits} == {"global", "local-0", "local-1"}
    grouped = HALOS | {"local_updates": 1, "local_servers": 2, "workers_per_server": 1}
    assert {commit.server for commit in record(tiny(policy=grouped)).commits} == {"global", "local-0", "local-1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_servers": 2, "workers_per_server": 2}, r"group 0 \(workers 0 to 1\) lies in regions 0 to 1"),
        ({"local_servers": 1, "workers_per_server": 2}, "1 local servers of 2 workers for 4 workers"),
        ({"local_servers": 2}, "give both"),
        ({"server_region": 9}, "server_region: 9 is not a region, 0 to 1"),
        ({"merge_weight": 1.5}, r"merge_weight: 1.5 is not in \[0, 1\]"),
        ({"local_updates": 0}, "local_updates: 0"),
    ],
)
def test_halos_refuses_groups_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        record(tiny(cluster=speeds([1], [1, 1, 1]), policy=HALOS | changes))


def test_bad_hyper_parameters_are_refused_by_the_policies_themselves() -> None:
    with pytest.raises(ConfigError, match="grace_seconds: -1"):
        AsyncLocalSGD(grace_seconds=-1)
    with pytest.raises(ConfigError, match="rebase: 'both' is not one of published, keep_local"):
        Halos(rebase="both")
