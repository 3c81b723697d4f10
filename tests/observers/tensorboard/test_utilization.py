"""How workers spend the time."""

from halos.observers.tensorboard.utilization import Utilization, by_region, utilization_curves
from halos.world.cluster import Cluster, Region, Worker

WORKERS = (Worker(0, 0, 1.0), Worker(1, 0, 1.0), Worker(2, 2, 1.0))
REGIONS = (Region(0, "us", WORKERS[:2]), Region(1, "empty", ()), Region(2, "eu", WORKERS[2:]))
CLUSTER = Cluster(REGIONS, WORKERS, 1.0, 0.0)


def test_shares_are_means_in_all_and_by_region_that_has_workers():
    assert utilization_curves(CLUSTER, [20.0, 40.0, 90.0]) == {
        "utilization/all workers [%]": 50.0,
        "utilization/region us [%]": 30.0,
        "utilization/region eu [%]": 90.0,
        "utilization/worker 0 in us [%]": 20.0,
        "utilization/worker 1 in us [%]": 40.0,
        "utilization/worker 2 in eu [%]": 90.0,
    }


def test_at_simulated_0_nothing_is_known():
    assert Utilization(CLUSTER).curves(0.0) == {}


def test_the_table_has_a_row_for_each_region_with_workers():
    spent = {"transfer": 0.25, "idle": 0.25, "down": 0.0}
    workers = [{"region": 0, "compute": 0.25, **spent}, {"region": 0, "compute": 0.75, **spent}]
    workers.append({"region": 2, "compute": 0.5, **spent})
    assert list(by_region(CLUSTER, workers)) == [
        ("us", "2", "50.0%", "25.0%", "25.0%", "0.0%"),
        ("eu", "1", "50.0%", "25.0%", "25.0%", "0.0%"),
    ]
