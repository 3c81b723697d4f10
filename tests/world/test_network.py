"""Transfer and all-reduce times, against arithmetic by hand and all rings tried one by one."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError
from halos.world.cluster import ClusterOptions, RegionOptions, build
from halos.world.network import Matrix
from tests.world.example import EXAMPLE


def connected(regions: int, **options: Any) -> Matrix:
    model = Matrix(**options)
    model.connect(build(ClusterOptions(regions=[RegionOptions(workers=[1.0]) for _ in range(regions)])))
    return model


def test_a_transfer_takes_its_bits_over_the_bandwidth_plus_the_latency() -> None:
    model = connected(2, bandwidth_gbps=[[1.0, 0.008], [0.016, 1.0]], latency_ms=[[0, 250], [500, 0]])
    assert model.transfer(4_000_000, 0, 1, 0.0) == pytest.approx(4.25)  # 4 MB over 1 MB/s, and a quarter second
    assert model.transfer(4_000_000, 1, 0, 0.0) == pytest.approx(2.5)


def test_an_all_reduce_of_16_workers_takes_what_upstream_computes_for_pythia_70m() -> None:
    model = connected(4, bandwidth_gbps=EXAMPLE)
    assert model.all_reduce(281_706_496, 16, 0.0) == pytest.approx(2 * 15 / 16 * 281_706_496 * 8 / 0.127e9)
    assert model.all_reduce(281_706_496, 1, 0.0) == 0.0


def test_latency_counts_once_per_ring_step() -> None:
    model = connected(2, bandwidth_gbps=float("inf"), latency_ms=10.0)
    assert model.all_reduce(1000, 4, 0.0) == pytest.approx(2 * 3 * 0.010)


def test_the_push_is_charged_at_its_own_direction_or_as_upstream_at_the_pulls() -> None:
    matrix = [[1.0, 0.008], [0.016, 1.0]]
    own = connected(2, bandwidth_gbps=matrix)
    forward = connected(2, bandwidth_gbps=matrix, return_path="forward")
    assert own.round_trip(1_000_000, 1_000_000, 0, 1, 0.0) == pytest.approx((1.0, 0.5))
    assert forward.round_trip(1_000_000, 1_000_000, 0, 1, 0.0) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth_gbps": None}, "bandwidth_gbps: missing; give 2 x 2"),
        ({"bandwidth_gbps": 0.0}, r"bandwidth_gbps\[0\]\[0\]: 0.0 is not a positive number"),
        ({"bandwidth_gbps": [[1, 1], [float("nan"), 1]]}, r"bandwidth_gbps\[1\]\[0\]: nan is not a positive"),
        ({"bandwidth_gbps": [[1, 1, 1], [1, 1, 1]]}, "shape 2 x 3, but there are 2 regions"),
        ({"bandwidth_gbps": [[1, 1], [1]]}, "shape 2 x 1/2"),
        ({"bandwidth_gbps": 1, "latency_ms": -1}, r"latency_ms\[0\]\[0\]: -1.0 is not zero or"),
        ({"bandwidth_gbps": 1, "latency_ms": float("inf")}, "latency_ms.*inf is not"),
    ],
)
def test_a_matrix_that_cannot_be_says_which_entry(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connected(2, **options)


def test_whole_numbers_are_bandwidths_too() -> None:
    assert connected(1, bandwidth_gbps=[[1]]).transfer(125_000_000, 0, 0, 0.0) == 1.0
