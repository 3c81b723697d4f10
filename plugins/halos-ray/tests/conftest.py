"""A Ray cluster of two nodes on this machine, which the tests are connected to, and actors that several runs use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from halos_ray.crew import Crew

QUICK = {  # how soon a node that has died is known to have, in milliseconds
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Of a head and another node, with room for four actors of a quarter of a core each."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("each process of pytest-xdist would start a cluster: python -m pytest plugins/halos-ray")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_AUTH_MODE": "disabled",  # a token would be written to the home directory
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }.items():
            patch.setenv(name, value)
        node = {"num_cpus": 2, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        found = Cluster(initialize_head=True, head_node_args={**node, "_system_config": QUICK})
        found.add_node(**node)
        ray.init(found.address, log_to_driver=False, logging_level="ERROR")
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.fixture(scope="session")
def hired(cluster: Any) -> list[Any]:
    """Actors that have been there before: it takes seconds until one has loaded PyTorch."""
    return []


@pytest.fixture
def lasting(hired: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take the actors that there are, and leave them for the next one."""
    hire = Crew._hired

    def some(self: Crew, count: int, cpus: float, gpus: float) -> list[Any]:
        hired.extend(hire(self, count - len(hired), cpus, gpus))
        return hired[:count]

    monkeypatch.setattr(Crew, "_hired", some)
    monkeypatch.setattr(Crew, "_dismiss", lambda self, handles: None)
