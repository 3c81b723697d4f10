"""How workers spend the simulated time: the share that computes, as curves, and all shares by region, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from halos.values.records import Update
from halos.world.cluster import Cluster

SHARES = ("compute", "transfer", "idle", "down")  # of a worker's time, as the summary has them
SHOWN_WORKERS = 16  # with more, there are curves of the busiest and the least busy alone
SHOWN_REGIONS = 16  # with more, there are no curves by region


class Utilization:
    """Adds up what jobs that have arrived computed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._computed = [0.0] * len(cluster.workers)  # seconds

    def add(self, update: Update) -> None:
        """One more has arrived."""
        start, end = update.compute
        self._computed[update.worker] += end - start

    def curves(self, time: float) -> dict[str, float]:
        """How much of all time so far was spent computing, in percent; nothing at simulated 0."""
        if time <= 0:
            return {}
        return utilization_curves(self._cluster, [min(100.0, 100 * seconds / time) for seconds in self._computed])


def utilization_curves(cluster: Cluster, shares: Sequence[float]) -> dict[str, float]:
    """Points of curves, of each worker's share of the time in percent: in all, by region and by worker."""
    found = {"all workers": sum(shares) / len(shares)}
    regions = [region for region in cluster.regions if region.workers]
    for region in regions if len(regions) <= SHOWN_REGIONS else ():
        found[f"region {region.name}"] = sum(shares[worker.id] for worker in region.workers) / len(region.workers)
    if len(shares) <= SHOWN_WORKERS:
        for worker in cluster.workers:
            found[f"worker {worker.id} in {cluster.regions[worker.region].name}"] = shares[worker.id]
    else:
        found |= {"busiest worker": max(shares), "least busy worker": min(shares)}
    return {f"utilization/{name} [%]": share for name, share in found.items()}


def by_region(cluster: Cluster, workers: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Per region, how its workers spent the simulated time on average, from the summary's `workers`."""
    for region in cluster.regions:
        several = [worker for worker in workers if worker["region"] == region.index]
        if several:
            means = [sum(worker[key] for worker in several) / len(several) for key in SHARES]
            yield (region.name, str(len(several)), *(f"{mean:.1%}" for mean in means))
