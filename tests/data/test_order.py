"""Which samples a job is dealt."""

import pytest

from halos.data.order import DataOrder, Range, shards_of
from halos.errors import ConfigError
from halos.world.cluster import Cluster, Region, Worker

# Two regions of two workers and one worker; ids 0, 1 | 2.
WORKERS = (Worker(0, 0, 1.0), Worker(1, 0, 0.5), Worker(2, 1, 1.0))
CLUSTER = Cluster((Region(0, "east", WORKERS[:2]), Region(1, "west", WORKERS[2:])), WORKERS, 1.0, 0.0)


def deal(shards: str) -> list[Range]:
    """Workers 0, 2, 1, 2 take 8, 4, 2 and 1 samples."""
    order = DataOrder(shards, CLUSTER)
    return [order.take(WORKERS[worker], count) for worker, count in ((0, 8), (2, 4), (1, 2), (2, 1))]


def test_one_cursor_serves_everybody_in_the_order_of_asking() -> None:
    assert deal("shared") == [Range(0, 0, 8), Range(0, 8, 12), Range(0, 12, 14), Range(0, 14, 15)]


def test_each_worker_has_its_own_iid_shard() -> None:
    assert deal("iid") == [Range(0, 0, 8), Range(2, 0, 4), Range(1, 0, 2), Range(2, 4, 5)]


@pytest.mark.parametrize("shards", ["by_region", "by_source"])
def test_workers_of_a_region_share_its_cursor(shards: str) -> None:
    assert deal(shards) == [Range(0, 0, 8), Range(1, 0, 4), Range(0, 8, 10), Range(1, 4, 5)]


@pytest.mark.parametrize("shards", ["shared", "iid", "by_region", "by_source"])
def test_what_was_taken_is_counted_over_all_shards(shards: str) -> None:
    order = DataOrder(shards, CLUSTER)
    assert order.taken == 0
    for worker in WORKERS:
        order.take(worker, 10)
    order.take(WORKERS[0], 0)
    assert order.taken == 30


def test_the_number_of_shards_follows_the_cluster() -> None:
    assert [shards_of(shards, CLUSTER) for shards in ("shared", "iid", "by_region", "by_source")] == [1, 3, 2, 2]


def test_an_unknown_kind_of_shards_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^shards: 'random' is not one of shared, iid, by_region, by_source$"):
        DataOrder("random", CLUSTER)


def test_what_is_given_back_is_dealt_to_the_next_job_of_the_shard_that_takes_no_more() -> None:
    order = DataOrder("by_region", CLUSTER)
    lost = order.take(WORKERS[0], 8)
    order.give_back(lost)
    assert order.take(WORKERS[2], 4) == Range(1, 0, 4)  # another shard
    assert order.take(WORKERS[0], 9) == Range(0, 8, 17)  # too many for what is there
    assert order.take(WORKERS[1], 5) == Range(0, 0, 5)
    assert order.take(WORKERS[0], 4) == Range(0, 17, 21)  # only three are left
    assert order.take(WORKERS[1], 3) == Range(0, 5, 8)
    assert order.take(WORKERS[1], 3) == Range(0, 21, 24)


def test_what_is_given_back_first_is_dealt_first() -> None:
    order = DataOrder("shared", CLUSTER)
    several = [order.take(worker, 4) for worker in WORKERS]
    for dealt in several:
        order.give_back(dealt)
    assert [order.take(WORKERS[0], 4) for _ in range(4)] == [*several, Range(0, 12, 16)]
