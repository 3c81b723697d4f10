"""Upstream's environment file: read when a configuration is resolved, which then holds what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.config import resolved
from halos.config.env import read_env, with_env
from halos.config.sections import to_sections
from halos.config.yaml_text import Section
from halos.errors import ConfigError
from halos.testing import tiny
from halos.world.cluster import ClusterOptions, RegionOptions, build

GOOD = "num_regions: 2\nnetwork_bandwidths: [[1, 2], [3, 4]]\nworker_speeds: [[1, 2], [4]]\n"


def from_env(path: Path, text: str) -> ClusterOptions:
    path.write_text(text)
    return with_env(ClusterOptions(env=path, step_time_ms=100))


def test_regions_are_numbered_and_whole_numbers_are_speeds_and_bandwidths_too(tmp_path: Path) -> None:
    cluster = build(from_env(tmp_path / "env.yaml", GOOD))
    assert [(worker.id, worker.region, worker.speed) for worker in cluster.workers] == [
        (0, 0, 0.25),
        (1, 0, 0.5),
        (2, 1, 1.0),
    ]
    assert cluster.bandwidth_gbps == [[1.0, 2.0], [3.0, 4.0]]
    assert cluster.step_time == 0.1


def test_the_shipped_example_environment_has_four_regions_of_four() -> None:
    cluster = build(with_env(ClusterOptions(env=Path(__file__).parents[2] / "configs/env/example.yaml")))
    assert [len(region.workers) for region in cluster.regions] == [4, 4, 4, 4]
    assert cluster.workers[1].speed == 1.0
    assert cluster.workers[0].speed == 0.232 / 0.907


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
        from_env(tmp_path / "env.yaml", text)


def test_a_missing_environment_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env: .*nowhere\.yaml does not exist"):
        with_env(ClusterOptions(env=tmp_path / "nowhere.yaml"))


def test_without_a_file_options_are_as_they_were() -> None:
    options = ClusterOptions(regions=[RegionOptions("a", [1.0])], bandwidth_gbps=[[2.0]])
    assert with_env(options) is options


def with_cluster(**cluster: object) -> Section:
    return {**tiny(), "cluster": cluster}


def test_what_it_says_is_in_the_configuration_and_the_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(GOOD)
    config, plugins = resolved(with_cluster(env=str(tmp_path / "env.yaml")))
    (tmp_path / "env.yaml").unlink()
    section = to_sections(config, plugins)
    assert section["cluster"] == {
        "env": None,
        "regions": [{"name": "region-0", "workers": [1.0, 2.0]}, {"name": "region-1", "workers": [4.0]}],
        "bandwidth_gbps": [[1.0, 2.0], [3.0, 4.0]],
        "step_time_ms": 238.391,
        "tie_break_ms": 0.0,
    }
    again, _ = resolved(section)
    assert build(again.cluster) == build(config.cluster)


def test_a_mistake_in_it_is_one_of_the_key_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.yaml").write_text("3")
    with pytest.raises(ConfigError, match=r"^cluster\.env: env\.yaml is no mapping with num_regions"):
        resolved(with_cluster(env="env.yaml"))
    with pytest.raises(ConfigError, match=r"^env: env\.yaml is no mapping"):
        read_env(tmp_path / "env.yaml")
