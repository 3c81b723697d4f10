"""Shared links: which links there are, what they carry when, and how long things take on their own."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any, Optional

import pytest
import yaml

from halos import Cluster, ConfigError, Phase, UserError
from halos.config.config import load_config
from halos.config.yaml_text import to_yaml
from halos.run.lifecycle import run
from halos.testing import tiny
from halos.world import cluster as clusters
from halos.world.bandwidth import Background, Change
from halos.world.cluster import ClusterOptions, RegionOptions
from halos.world.shared_links import BackboneLink, SharedLinks


def cluster(*workers: int, gbps: Optional[list[list[float]]] = None) -> Cluster:
    """Regions a, b, … of so many workers."""
    regions = [RegionOptions("abcd"[index], [1.0] * count) for index, count in enumerate(workers)]
    return clusters.build(ClusterOptions(regions=regions, bandwidth_gbps=gbps))


def connected(where: Cluster, **options: Any) -> SharedLinks:
    network = SharedLinks(**options)
    network.connect(where)
    return network


def test_a_message_crosses_the_uplink_the_way_and_the_downlink() -> None:
    options = {"up_gbps": 10.0, "down_gbps": [5.0, 2.0], "backbone_gbps": 1.0, "inside_gbps": 100.0, "latency_ms": 40.0}
    network = connected(cluster(1, 1), backbone=[BackboneLink("cable", 4.0, [[0, 1]])], **options)
    assert network.message_phases(7, 0, 1, 0, None, None) == [
        Phase({"a.up": 7.0, "a->b": 7.0, "cable": 7.0, "b.down": 7.0}, 0.04)
    ]
    assert network.message_phases(7, 1, 0, 0, None, None) == [Phase({"b.up": 7.0, "b->a": 7.0, "a.down": 7.0}, 0.04)]
    assert network.message_phases(7, 1, 1, 0, None, None) == [Phase({"b.inside": 7.0}, 0.04)]
    assert network.transfer(10**9, 0, 1, 0.0) == 8.04  # by the way between, of 1 Gbit/s


def test_workers_have_links_of_their_own_where_it_is_known_who_they_are() -> None:
    network = connected(cluster(1, 2), up_gbps=math.inf, worker_up_gbps=1.0, worker_down_gbps=2.0)
    assert network.message_phases(7, 1, 0, 0, 2, 0) == [Phase({"worker-2.up": 7.0, "worker-0.down": 7.0})]
    assert network.message_phases(7, 1, 0, 0, None, None) == [Phase({})]
    assert network.message_phases(7, 1, 0, 0, 99, 1) == [Phase({})]  # no worker, and one of another region


def test_without_numbers_of_its_own_every_way_has_what_the_cluster_says() -> None:
    network = connected(cluster(1, 1, gbps=[[9.0, 1.0], [0.5, 8.0]]))
    assert [network.capacity(link, 0.0)[0] for link in ("a.inside", "a->b", "b->a", "b.inside")] == [9e9, 1e9, 5e8, 8e9]
    assert network.message_phases(7, 1, 0, 0, None, None) == [Phase({"b->a": 7.0})]


# A gigabyte, and links of 8 Gbit/s between workers: a second each. Latencies are 10 ms between and 1 ms inside regions.
FAST: dict[str, Any] = {
    "worker_up_gbps": 8.0,
    "worker_down_gbps": 8.0,
    "up_gbps": math.inf,
    "latency_ms": [[1.0, 10.0], [10.0, 1.0]],
}


@pytest.mark.parametrize(
    ("collectives", "seconds"),
    [
        ("ring", 2 * 5 / 6 * 1.0 + 10 * 0.010),  # 2 (M-1) / M of a second, and 2 (M-1) latencies (Patarasuk and Yuan)
        # ⌈log₂ 6⌉ = 3 stages each way. 1, 3 and 5 to 0, 2 and 4: 2 and 3 are in different regions. 2 to 0, inside; 4
        # to 0, between regions.
        ("tree", 2 * (3 * 1.0 + 0.010 + 0.001 + 0.010)),
        # Chains of three, in and out: a second and two latencies each. Between: 2 (R-1) / R = 1 of a second, and two.
        ("hierarchical", 2 * (1.0 + 2 * 0.001) + 1.0 + 2 * 0.010),
    ],
)
def test_an_all_reduce_alone_takes_what_its_closed_form_says(collectives: str, seconds: float) -> None:
    network = connected(cluster(3, 3), collectives=collectives, **FAST)
    assert network.all_reduce(10**9, 6, 0.0) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("collectives", "seconds"),
    [
        ("ring", 5 * 1.0 + 5 * 0.010),  # (M-1) (latency + a second)
        # Up: 1, 2 and 2 (of 0's other child, 4 and 5) payloads. Down: to 4 what is new to it, 4; to 2 also 4; to 1, 5.
        ("tree", (1 + 2 + 2) + (4 + 4 + 5) + 2 * (0.010 + 0.001 + 0.010)),
        ("hierarchical", (2 * 1.0 + 2 * 0.001) + (3 * 1.0 + 0.010) + (3 * 1.0 + 2 * 0.001)),
    ],
)
def test_an_all_gather_alone_takes_what_its_closed_form_says(collectives: str, seconds: float) -> None:
    network = connected(cluster(3, 3), collectives=collectives, **FAST)
    assert network.all_gather(10**9, 6, 0.0) == pytest.approx(seconds, rel=1e-12)


def test_a_tree_and_a_hierarchy_leave_a_region_with_one_payload_and_a_ring_with_nearly_two() -> None:
    # 1 Gbit/s out of region a, the rest free. Hierarchical: half a payload, twice, as on a ring of two.
    where = cluster(4, 4)
    seconds = {
        name: connected(where, up_gbps=[1.0, math.inf], collectives=name).all_reduce(10**9, 8, 0.0)
        for name in ("ring", "tree", "hierarchical")
    }
    # A ring of eight leaves a once: 2 · 7/8 payloads. A tree's root, 0, sends one payload to 4.
    assert seconds == pytest.approx({"ring": 14.0, "tree": 8.0, "hierarchical": 8.0})


def test_up_and_down_may_differ() -> None:
    network = connected(cluster(1, 1), up_gbps=[1.0, 8.0], down_gbps=[4.0, 8.0])
    assert network.round_trip(10**9, 10**9, 0, 1, 0.0) == (8.0, 2.0)  # out of a at 1 Gbit/s, into it at 4


def test_background_and_changes_are_of_a_link() -> None:
    options: dict[str, Any] = {
        "changes": [Change(20.0, "a.up", 0.0), Change(10.0, "a.up", 4.0)],  # in any order
        "background": [Background("a.up", share=0.5, at_seconds=5.0, seconds=10.0), Background("b.up", gbps=3.0)],
    }
    network = connected(cluster(1, 1), up_gbps=8.0, **options)
    assert [network.capacity("a.up", time) for time in (0.0, 5.0, 10.0, 15.0, 20.0)] == [
        (8e9, 5.0),
        (4e9, 10.0),
        (2e9, 15.0),
        (4e9, 20.0),
        (0.0, math.inf),
    ]
    assert network.capacity("b.up", 7.0) == (5e9, math.inf)
    # 10 GB from 0 s: 40 Gbit by 5 s, 20 more by 10 s, 10 more by 15 s, and the last 10 by 17.5 s.
    assert network.transfer(10**10, 0, 1, 0.0) == 17.5
    assert network.transfer(10**10, 0, 1, 19.0) == math.inf


def test_jitter_is_exponential_and_drawn_by_seed_and_number() -> None:
    network = connected(cluster(1, 1), up_gbps=1.0, latency_ms=100.0, jitter_ms=20.0, seed=3)
    network.seeded(3)

    def jitter(which: SharedLinks, number: int) -> float:
        (phase,) = which.message_phases(0, 0, 1, number, None, None)
        return phase.latency - 0.1

    drawn = [jitter(network, number) for number in range(4000)]
    assert min(drawn) >= 0.0
    assert fmean(drawn) == pytest.approx(0.02, rel=5 / math.sqrt(4000))  # within five standard errors
    assert pvariance(drawn) == pytest.approx(0.02**2, rel=5 * math.sqrt(8 / 4000))
    same, other = (connected(cluster(1, 1), up_gbps=1.0, latency_ms=100.0, jitter_ms=20.0) for _ in range(2))
    same.seeded(3)
    other.seeded(4)
    assert [jitter(same, number) for number in reversed(range(4))] == drawn[3::-1]  # in whatever order
    assert jitter(other, 0) != drawn[0]
    assert network.transfer(0, 0, 1, 0.0) == pytest.approx(0.12)  # who asks beforehand is told the mean
    assert network.all_reduce(0, 2, 0.0) == pytest.approx(2 * 0.12)


def test_a_collective_has_the_jitter_of_all_its_steps() -> None:
    network = connected(cluster(2, 2), up_gbps=1.0, jitter_ms=20.0)
    network.seeded(0)
    drawn = [
        phase.latency
        for number in range(2000)
        for phase in network.collective_phases(1, cluster(2, 2).workers, False, number)
    ]
    assert fmean(drawn) == pytest.approx(6 * 0.02, rel=5 / math.sqrt(6 * 2000))  # 2 (M-1) steps


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "up_gbps: missing, and so is every other limit; give Gbit/s of links, or .inf"),
        ({"up_gbps": 0.0}, "up_gbps: 0.0 is not a positive number of Gbit/s"),
        ({"up_gbps": [1.0, 0.0]}, "up_gbps[1]: 0.0 is not a positive number of Gbit/s"),
        ({"down_gbps": [1.0]}, "down_gbps: has 1 numbers, but there are 2 regions"),
        ({"backbone_gbps": [[1.0, -1.0], [1.0, 1.0]]}, "backbone_gbps[0][1]: -1.0 is not a positive number of Gbit/s"),
        ({"up_gbps": 1e-16}, "up_gbps: 1e-16 is not at least 1e-15 Gbit/s"),
        ({"worker_up_gbps": math.nan}, "worker_up_gbps: nan is not a positive number of Gbit/s"),
        ({"up_gbps": 1.0, "latency_ms": -1.0}, "latency_ms[0][0]: -1.0 is not in [0, 1e+15]"),
        ({"up_gbps": 1.0, "jitter_ms": -1.0}, "jitter_ms: -1.0 is not zero or a positive number, of 1e+15 at most"),
        ({"collectives": "star"}, "collectives: 'star' is not one of ring, tree, hierarchical"),
        (
            {"backbone": [BackboneLink("x", 1.0, [[0, 2]])]},
            "backbone[0].ways[0]: [0, 2] is not two different regions, [from, to], of 0 to 1",
        ),
        (
            {"backbone": [BackboneLink("x", 1.0), BackboneLink("x", 1.0)]},
            "backbone[1].name: 'x' is not a name used once",
        ),
        (
            {"backbone": [BackboneLink("a.up", 1.0)]},
            "two links have the name 'a.up'; rename the backbone link or a region",
        ),
        (
            {"up_gbps": 1.0, "background": [Background("a.upp")]},
            "background[0].link: 'a.upp' is no link (did you mean 'a.up'?); there are a.up, b.up, a.down, b.down,"
            " a.inside, b.inside, a->b, b->a",
        ),
        (
            {"up_gbps": 1.0, "background": [Background("a.down", gbps=1.0)]},
            "background[0].link: 'a.down' has no limit that could change; give it one",
        ),
        (
            {"up_gbps": 1.0, "background": [Background("a.up", gbps=1.0)]},
            "link 'a.up' never carries anything: see its changes and background",
        ),
        (
            {"up_gbps": 1.0, "changes": [Change(1.0, "a.up", 1.0), Change(1.0, "a.up", 2.0)]},
            "changes[1].time_s: 1.0 is not a moment used once for a link",
        ),
        (
            {"up_gbps": 1.0, "changes": [Change(9.0, "a.up", 1.0)], "changes_repeat_seconds": 9.0},
            "changes[0].time_s: 9.0 is not before changes_repeat_seconds",
        ),
        ({"up_gbps": 1.0, "changes_repeat_seconds": 9.0}, "changes_repeat_seconds: given without changes"),
        (
            {"changes": [Change(9.0, "a.up", 1.0)], "changes_csv": Path("x.csv")},
            "changes_csv: given beside changes; they come from one of the two",
        ),
    ],
)
def test_mistakes_are_told_with_their_key(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connected(cluster(1, 1), **options)
    assert str(caught.value) == said


def test_a_csv_that_is_not_there_is_told_with_its_key() -> None:
    with pytest.raises(UserError, match=r"^changes_csv: nowhere.csv cannot be read: No such file or directory$"):
        connected(cluster(1, 1), up_gbps=1.0, changes_csv=Path("nowhere.csv"))


def test_what_a_csv_says_is_in_the_resolved_configuration_and_its_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text("time_s,link,gbps\n3,region-0.inside,0.5\n", encoding="utf-8")
    network = {"name": "shared_links", "inside_gbps": 1.0, "changes_csv": "links.csv", "bandwidth_gbps": None}
    quiet = {"observers": {"progress": False, "tensorboard": False, "trace": False}, "executor": {"name": "timing"}}
    sections = tiny(network=network) | quiet
    del sections["network"]["bandwidth_gbps"]
    (tmp_path / "config.yaml").write_text(to_yaml(sections), encoding="utf-8")
    loaded = load_config(str(tmp_path / "config.yaml"), [f"out={tmp_path}/run"])
    run(*loaded)
    resolved = yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8"))["network"]
    assert resolved["changes"] == [{"time_s": 3.0, "link": "region-0.inside", "gbps": 0.5}]
    assert resolved["changes_csv"] is None
