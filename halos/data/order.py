"""Data order: which samples a job is dealt, decided at its dispatch.

Only positions are dealt here, so a timing run has the same order without any data; which samples
the positions stand for is the feed's business.
"""

from __future__ import annotations

from msgspec import Struct

from halos.data import SHARDS
from halos.errors import require
from halos.world.cluster import Cluster, Worker


class Range(Struct, frozen=True, gc=False):
    """Positions `first` to `end` (exclusive) of a shard; they grow for ever, epoch after epoch."""

    shard: int
    first: int
    end: int


class DataOrder:
    """A cursor per shard: `shared` has one for everybody, `iid` one per worker, the others one per region."""

    def __init__(self, shards: str, cluster: Cluster) -> None:
        self.shards = shards
        self.taken = 0  # samples dealt so far, over all shards, those dealt again included
        self._cursors = [0] * shards_of(shards, cluster)
        self._returned: list[Range] = []  # of lost jobs

    def take(self, worker: Worker, count: int) -> Range:
        """The next `count` samples of the worker's shard."""
        assert count >= 0, f"worker {worker.id} asked for {count} samples"
        shard = self.shard(worker)
        self.taken += count
        for index, back in enumerate(self._returned):
            if back.shard == shard and back.end - back.first >= count:
                self._returned[index : index + 1] = (
                    [Range(shard, back.first + count, back.end)] if back.end - back.first > count else []
                )
                return Range(shard, back.first, back.first + count)
        first = self._cursors[shard]
        self._cursors[shard] = first + count
        return Range(shard, first, first + count)

    def shard(self, worker: Worker) -> int:
        """The shard that the worker reads, by number."""
        return 0 if self.shards == "shared" else worker.id if self.shards == "iid" else worker.region

    def give_back(self, dealt: Range) -> None:
        """Deal these again, to the next jobs of this shard that take no more than that."""
        self._returned.append(dealt)


def shards_of(shards: str, cluster: Cluster) -> int:
    """How many shards the samples are split into; regions without workers are counted, though nobody reads theirs."""
    require(shards in SHARDS, "shards", shards, "one of " + ", ".join(SHARDS))
    if shards == "shared":
        return 1
    return len(cluster.workers if shards == "iid" else cluster.regions)
