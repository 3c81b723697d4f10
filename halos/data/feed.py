"""Feed: the tokens behind a shard's positions.

The data order deals positions, which grow for ever; here they become rows of the corpus: which rows
a shard has, in which order an epoch visits them, and what happens at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from halos import seeds
from halos.data import Corpus, DataSource
from halos.data.order import shards_of
from halos.errors import ConfigError, UserError
from halos.world.cluster import Cluster

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("halos.data")

Rows: TypeAlias = "range | NDArray[Any]"  # of one shard, ascending; reading a range copies nothing
EPOCHS_KEPT = 2  # per shard: jobs that began before the end of an epoch are read after it


class Feed:
    """Training and validation batches, int64 tensors [samples, sequence_length + 1].

    A pure function of (corpus, options, cluster, seed): reading is in no way affected by what was
    read before, so jobs may be computed in any order, or again. `seed` is the run's; one of the options' own counts
    more.
    """

    def __init__(self, corpus: Corpus, options: DataSource, cluster: Cluster, seed: int) -> None:
        self.corpus = corpus
        self.options = options
        self.seed = seeds.own_seed(options, seed)
        self._shards = split(corpus, options, cluster, self.seed)
        self._index = np.int32 if len(corpus) < 2**31 else np.int64  # of permutations; half the memory if possible
        self._permuted: list[dict[int, NDArray[Any]]] = [{} for _ in self._shards]
        self._announced = [0] * len(self._shards)  # the last epoch whose beginning was logged

    @property
    def sizes(self) -> list[int]:
        """Samples per shard and epoch."""
        return [len(rows) for rows in self._shards]

    @property
    def validation_samples(self) -> int:
        """How many samples `validation` gives."""
        return self.options.validation_samples

    def train(self, shard: int, first: int, count: int) -> torch.Tensor:
        """The samples at positions `first` to `first + count` of a shard; past its end it starts over."""
        size = len(self._shards[shard])
        if first + count > size and not self.options.wrap:
            raise UserError(
                f"data.wrap: false, but shard {shard} has {size} samples and samples {first} to {first + count - 1} "
                "were asked for; wrap: true starts over, a smaller budget ends before"
            )
        assert min(size - 1, first, count) >= 0, f"shard {shard} of {size} samples: {count} samples at {first}"
        epoch, offset = divmod(first, size)
        if offset + count <= size:
            return self._read(self._rows(shard, epoch, offset, offset + count), count)
        pieces = []
        while count:
            end = min(offset + count, size)
            pieces.append(self._read(self._rows(shard, epoch, offset, end), end - offset))
            epoch, offset, count = epoch + 1, 0, count - (end - offset)
        return torch.cat(pieces)

    def validation(self, batch_size: int) -> Iterator[torch.Tensor]:
        """The tail of the corpus, in order, in batches; the last one may be smaller."""
        end = len(self.corpus)
        for first in range(end - self.options.validation_samples, end, batch_size):
            last = min(first + batch_size, end)
            yield self._read(slice(first, last), last - first)

    def _rows(self, shard: int, epoch: int, first: int, end: int) -> slice | NDArray[np.int64]:
        """Corpus rows of positions within one epoch."""
        if epoch > self._announced[shard]:
            self._announced[shard] = epoch
            size = len(self._shards[shard])
            log.info("shard %d: epoch %d begins at sample %d", shard, epoch + 1, epoch * size)
        rows = self._permutation(shard, epoch) if self.options.shuffle else self._shards[shard]
        if isinstance(rows, range):
            return slice(rows.start + first, rows.start + end)
        return rows[first:end].astype(np.int64)

    def _permutation(self, shard: int, epoch: int) -> NDArray[Any]:
        """The shard's rows in the order in which this epoch visits them."""
        kept = self._permuted[shard]
        if epoch not in kept:
            while len(kept) >= EPOCHS_KEPT:
                del kept[next(iter(kept))]
            rows = self._shards[shard]
            if isinstance(rows, range):
                rows = np.arange(rows.start, rows.stop, dtype=self._index)
            kept[epoch] = seeds.generator(self.seed, "shuffle", shard, epoch).permutation(rows)
        return kept[epoch]

    def _read(self, rows: slice | NDArray[np.int64], count: int) -> torch.Tensor:
        samples = self.corpus.read(rows)
        expected = (count, self.options.sequence_length + 1)
        if samples.shape != expected or samples.dtype.kind not in "iu":
            raise UserError(
                f"data: {type(self.corpus).__name__} returned {samples.dtype}{list(samples.shape)} "
                f"where integers {list(expected)} were asked for"
            )
        tokens = samples.astype(np.int64, order="C")
        # An embedding's complaint would be an obscure one (on a GPU it ends the process). Unsigned: negative is large.
        if tokens.size and tokens.view(np.uint64).max() >= self.corpus.vocab_size:
            bad = tokens[(tokens < 0) | (tokens >= self.corpus.vocab_size)][0]
            raise UserError(f"data: the corpus holds token {bad}, but its vocab_size is {self.corpus.vocab_size}")
        return torch.from_numpy(tokens)


def split(corpus: Corpus, options: DataSource, cluster: Cluster, seed: int) -> list[Rows]:
    """The rows of each shard: disjoint, and without the validation tail if that is held out.

    Regions without workers get nothing; anybody else's empty shard is an error. `iid`'s shards are
    equally large, so up to one sample per worker is left over.
    """
    total, tail = len(corpus), options.validation_samples
    if tail > total:
        raise ConfigError("validation_samples", f"{tail}, but the corpus has {total} samples")
    size = total - tail if options.hold_out else total
    if size < 1:
        raise ConfigError(
            "validation_samples",
            f"{tail} of {total} samples are held out; none is left to train on (hold_out: false trains on all)",
        )
    count = shards_of(options.shards, cluster)
    if options.shards == "shared":
        return [range(size)]
    if options.shards == "iid":
        each = size // count
        if not each:
            raise ConfigError("shards", f"iid: {size} samples to train on are too few for {count} workers")
        rows = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64)
        rows = seeds.generator(seed, "iid").permutation(rows)
        return [np.sort(rows[each * i : each * (i + 1)]) for i in range(count)]
    populated = [region.index for region in cluster.regions if region.workers]
    shards: list[Rows] = [range(0)] * count
    if options.shards == "by_region":
        if size < len(populated):
            raise ConfigError(
                "shards", f"by_region: {size} samples to train on are too few for {len(populated)} regions"
            )
        for i, region in enumerate(populated):
            shards[region] = range(size * i // len(populated), size * (i + 1) // len(populated))
        return shards
    regions = _by_source(corpus, size, populated)
    for region in populated:
        shards[region] = np.flatnonzero(regions == region)
    return shards


def _by_source(corpus: Corpus, size: int, populated: list[int]) -> NDArray[np.int64]:
    """The region of each of the first `size` samples: whole sources, the biggest first, to whoever has least."""
    if corpus.sources is None:
        raise ConfigError("shards", "by_source, but this corpus does not say which source its samples are from")
    if len(corpus.sources) != len(corpus):
        raise ConfigError("shards", f"by_source: {len(corpus)} samples, but sources for {len(corpus.sources)}")
    _, source, samples = np.unique(np.asarray(corpus.sources)[:size], return_inverse=True, return_counts=True)
    if len(samples) < len(populated):
        raise ConfigError(
            "shards", f"by_source: {len(samples)} sources to train on are too few for {len(populated)} regions"
        )
    load = dict.fromkeys(populated, 0)
    region_of = np.empty(len(samples), np.int64)
    for one in np.argsort(-samples, kind="stable"):
        region = min(populated, key=load.__getitem__)
        region_of[one] = region
        load[region] += int(samples[one])
    return region_of[source]
