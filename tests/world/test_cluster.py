"""Regions, workers, and upstream's environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.errors import ConfigError
from halos.world.cluster import ClusterOptions, RegionOptions, build

GOOD = "num_regions: 2\nnetwork_bandwidths: [[1, 2], [3, 4]]\nworker_speeds: [[1, 2], [4]]\n"


def from_env(path: Path, text: str) -> ClusterOptions:
    path.write_text(text)
    return ClusterOptions(env=str(path), step_time_ms=100)


def test_speeds_are_divided_by_the_fastest_and_may_be_whole_numbers(tmp_path: Path) -> None:
    cluster = build(from_env(tmp_path / "env.yaml", GOOD))
    assert [(worker.id, worker.region, worker.speed) for worker in cluster.workers] == [
        (0, 0, 0.25),
        (1, 0, 0.5),
        (2, 1, 1.0),
    ]
    assert cluster.bandwidth_gbps == [[1.0, 2.0], [3.0, 4.0]]
    assert cluster.step_time == 0.1


def test_the_shipped_example_environment_has_four_regions_of_four() -> None:
    cluster = build(ClusterOptions(env=str(Path(__file__).parents[2] / "configs/env/example.yaml")))
    assert [len(region.workers) for region in cluster.regions] == [4, 4, 4, 4]
    assert cluster.workers[1].speed == 1.0
    assert cluster.workers[0].speed == 0.232 / 0.907


def test_a_region_may_be_empty_but_not_all(tmp_path: Path) -> None:
    cluster = build(ClusterOptions(regions=[RegionOptions(workers=[]), RegionOptions("b", [2.0])]))
    assert [worker.region for worker in cluster.workers] == [1]
    with pytest.raises(ConfigError, match="no region has a worker"):
        build(ClusterOptions(regions=[RegionOptions("a")]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "no mapping"),
        ("num_regions: 2\n", "no key 'network_bandwidths'"),
        (GOOD.replace("num_regions: 2", "num_regions: 3"), "2 rows for 3 regions"),
        (GOOD.replace("num_regions: 2", "num_regions: two"), "num_regions is 'two'"),
        (GOOD.replace("[4]", "[.nan]"), r"worker_speeds\[1\]\[0\] is nan"),
        (GOOD.replace("[4]", "[0]"), r"worker_speeds\[1\]\[0\] is 0, not a positive"),
        (GOOD.replace("[4]", "[-1.5]"), r"worker_speeds\[1\]\[0\] is -1.5"),
        (GOOD.replace("[4]", "4"), "worker_speeds is not a list of lists"),
        (GOOD.replace("[3, 4]", "[3, 0.0]"), r"network_bandwidths\[1\]\[1\] is 0.0"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_bad_environment_file_says_what_is_wrong_with_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(from_env(tmp_path / "env.yaml", text))


def test_a_missing_environment_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env: .*nowhere\.yaml does not exist"):
        build(ClusterOptions(env=str(tmp_path / "nowhere.yaml")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_time_ms": 0}, "step_time_ms: 0 is not a positive"),
        ({"step_time_ms": float("nan")}, "step_time_ms: nan"),
        ({"tie_break_ms": -1.0}, "tie_break_ms: -1.0"),
        ({"env": "x", "regions": [RegionOptions()]}, "regions: given beside env"),
    ],
)
def test_bad_cluster_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterOptions(**options)  # type: ignore[arg-type]


def test_two_regions_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a' is not a region name used once"):
        build(ClusterOptions(regions=[RegionOptions("a", [1.0]), RegionOptions("a", [1.0])]))
