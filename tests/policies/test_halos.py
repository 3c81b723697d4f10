"""HALoS: exchanges, groups and servers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError
from halos.policies.halos import Halos
from halos.sim.clock import Deadlock
from halos.testing import record, tiny
from tests.faulty import outage
from tests.policies.speeds import speeds
from tests.small_runs import AVERAGE, TWO_REGIONS

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


def test_halos_records_an_updates_whole_way_to_the_global_model_beside_the_exchanges_own_hop() -> None:
    # The timeline of the test above. An update takes x = 1 − θ to 0.81 x; the second exchange is merged at 15 s.
    run = record(
        tiny(
            cluster=speeds([], [1]),
            network={"bandwidth_gbps": float("inf"), "latency_ms": [[0, 3000], [3000, 0]]},
            model={"dtype": "float64", "size": 1},
            policy=HALOS,
            budget={"local_steps": 12},
        )
    )
    first, second = (commit.shares[0] for commit in run.global_commits)
    # At 7 s, into Θ = 0: what began at 0 s from 0, and at 2 s from 0.19. The hop: Θ has not moved since the start.
    assert (first.hop_staleness, first.hop_drift) == (0, 0.0)
    assert [(way.staleness, way.seconds) for way in first.end_to_end] == [(0, 7.0), (0, 5.0)]
    assert [way.drift for way in first.end_to_end] == pytest.approx([0.0, 0.19], abs=1e-12)
    # At 15 s, into x = .81²: what began at 4, 6, 8 s, while updates went on, and at 10 s after Θ was taken over.
    q = 0.81
    z = 0.75 * q**4 + 0.25 * q**2 - (q**4 - q**5)
    assert (second.hop_staleness, second.hop_drift) == (0, 0.0)
    assert [(way.staleness, way.seconds) for way in second.end_to_end] == [(1, 11.0), (1, 9.0), (0, 7.0), (0, 5.0)]
    starts = [q**2, q**3, q**4, z]
    assert [way.drift for way in second.end_to_end] == pytest.approx([q**2 - x for x in starts], abs=1e-12)
    # Local servers record their hop only: the whole way is not over.
    local = [commit.shares[0] for commit in run.commits if commit.server == "local-0" and commit.shares]
    assert all(share.end_to_end == () for share in local)


def test_an_update_may_be_close_to_the_global_model_that_takes_it_in_where_the_hop_was_far() -> None:
    # Two workers of local-0 half a second from the global server, one of local-1 beside it; an update every 2 s takes
    # x = 1 − θ to 0.81 x. Θ moves by half of what comes, and local servers keep their own model.
    run = record(
        tiny(
            cluster=speeds([1, 1], [1]),
            network={"bandwidth_gbps": float("inf"), "latency_ms": [[0, 500], [500, 0]]},
            model={"dtype": "float64", "size": 1},
            policy=HALOS | {"outer": {"name": "sgd", "lr": 0.5}, "merge_weight": 0.0, "server_region": 1},
            budget={"local_steps": 12},
        )
    )
    # At 2 s local-0 is at 0.19 and 0.38, where its workers go on; at 2.5 s Θ = 0.38 / 2; at 4 s local-1 brings 0.3439.
    assert [commit.time for commit in run.global_commits] == [2.5, 4.0, 4.5]
    assert run.thetas[:2] == pytest.approx([0.19, 0.19 + 0.5 * 0.3439], abs=1e-12)
    late = run.global_commits[2].shares[0]  # at 4.5 s, into 0.36195, computed by local-0 from Θ = 0.19
    assert (late.hop_staleness, late.hop_drift) == (1, pytest.approx(0.17195, abs=1e-12))
    assert [way.drift for way in late.end_to_end] == pytest.approx([0.17195, 0.01805], abs=1e-12)
    assert [way.staleness for way in late.end_to_end] == [2, 2]  # both began at 2 s, when Θ was the initial model


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


@pytest.mark.parametrize("region", [0, 1])
def test_halos_survives_the_loss_of_a_region(region: int) -> None:
    """Also of the one with the global server: nothing is committed then, and everything goes on afterwards."""
    cluster = {"regions": [{"workers": [1.0, 0.7]}, {"workers": [1.0, 0.7]}], "step_time_ms": 1000.0}
    run = record(
        tiny(
            cluster=cluster, network={"bandwidth_gbps": 1e-6}, budget={"local_steps": 400},
            policy={"name": "halos", "local_updates": 4, "outer": AVERAGE, "local": {"name": "sgd", "lr": 0.5}},
            faults=outage(region, 100.0, 50.0, detection_seconds=2.0),
        )
    )  # fmt: skip
    assert run.simulation.ledger.committed >= 400
    heard = [
        (commit.time, run.simulation.workers[share.updates[0].worker].region)
        for commit in run.global_commits
        for share in commit.shares
    ]
    silent = [time for time, where in heard if 101.0 < time < 150.0 and (where == region or region == 0)]
    assert silent == []
    assert [time for time, where in heard if where == region and time > 150.0]
    if region == 1:
        assert [time for time, where in heard if where == 0 and 101.0 < time < 150.0]
    down = {(each.worker, each.start, each.end) for each in run.simulation.faults.outages()}
    assert down == {(2 * region, 100.0, 150.0), (2 * region + 1, 100.0, 150.0)}
    assert run.simulation.faults.lost()["jobs"] >= 2
    assert 1 - run.global_commits[-1].params.flat[0] < 0.01  # type: ignore[index]


def test_halos_that_has_lost_its_global_server_for_ever_ends_with_a_word() -> None:
    sections = tiny(cluster=TWO_REGIONS, executor={"name": "timing"}, policy={"name": "halos", "local_updates": 2})
    with pytest.raises(Deadlock, match=r"none committed until .* s; faults keep it from going on; workers 0 are down"):
        record(sections | {"faults": outage(0, 3.0)})


def test_how_a_local_server_goes_on_after_a_merge_is_one_of_two_ways() -> None:
    with pytest.raises(ConfigError, match="rebase: 'both' is not one of published, keep_local"):
        Halos(rebase="both")
