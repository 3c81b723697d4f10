"""Regions, workers, and the bandwidths between regions."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.errors import ConfigError
from halos.world.cluster import ClusterOptions, RegionOptions, build


def test_speeds_are_divided_by_the_fastest_and_may_be_whole_numbers() -> None:
    options = ClusterOptions(regions=[RegionOptions("a", [1, 2]), RegionOptions(workers=[4])], step_time_ms=100)
    cluster = build(options)
    assert [(worker.id, worker.region, worker.speed) for worker in cluster.workers] == [
        (0, 0, 0.25),
        (1, 0, 0.5),
        (2, 1, 1.0),
    ]
    assert [region.name for region in cluster.regions] == ["a", "region-1"]
    assert cluster.step_time == 0.1


def test_a_region_may_be_empty_but_not_all() -> None:
    cluster = build(ClusterOptions(regions=[RegionOptions(workers=[]), RegionOptions("b", [2.0])]))
    assert [worker.region for worker in cluster.workers] == [1]
    with pytest.raises(ConfigError, match="no region has a worker"):
        build(ClusterOptions(regions=[RegionOptions("a")]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_time_ms": 0}, "step_time_ms: 0 is not a positive"),
        ({"step_time_ms": float("nan")}, "step_time_ms: nan"),
        ({"tie_break_ms": -1.0}, "tie_break_ms: -1.0"),
        ({"env": Path("x"), "regions": [RegionOptions()]}, "regions: given beside env"),
        ({"env": Path("x"), "bandwidth_gbps": [[1.0]]}, "bandwidth_gbps: given beside env"),
    ],
)
def test_bad_cluster_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterOptions(**options)  # type: ignore[arg-type]


def test_two_regions_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a' is not a region name used once"):
        build(ClusterOptions(regions=[RegionOptions("a", [1.0]), RegionOptions("a", [1.0])]))


TWO = [RegionOptions(workers=[1.0]), RegionOptions(workers=[1.0])]


def test_bandwidths_are_the_clusters_if_they_are_given_and_fit_its_regions() -> None:
    assert build(ClusterOptions(regions=TWO)).bandwidth_gbps is None
    gbps = [[1.0, float("inf")], [3.0, 4.0]]
    assert build(ClusterOptions(regions=TWO, bandwidth_gbps=gbps)).bandwidth_gbps == gbps


@pytest.mark.parametrize(
    ("gbps", "message"),
    [
        ([[1.0]], "bandwidth_gbps: is not 2 rows of 2 numbers"),
        ([[1.0, 2.0], [3.0]], "bandwidth_gbps: is not 2 rows of 2 numbers"),
        ([], "bandwidth_gbps: is not 2 rows of 2 numbers"),
        ([[1.0, 2.0], [0.0, 4.0]], r"bandwidth_gbps\[1\]\[0\]: 0.0 is not a positive number"),
        ([[1.0, float("nan")], [3.0, 4.0]], r"bandwidth_gbps\[0\]\[1\]: nan is not a positive number"),
    ],
)
def test_bandwidths_that_do_not_fit_are_refused(gbps: list[list[float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ClusterOptions(regions=TWO, bandwidth_gbps=gbps))
