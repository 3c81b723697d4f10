"""Feed: the samples behind a shard's positions.

The data order deals positions, which grow for ever; here they become rows of the corpus: which rows
a shard has, in which order an epoch visits them, and what happens at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, TypeAlias

import numpy as np
import torch

from halos import seeds
from halos.data import Corpus, DataSource, check_vocabulary
from halos.data.batch import Batch, joined
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

    Samples that are no tokens (the corpus has no `vocab_size`) are tensors [samples, …], or a Batch of several:
    integers as int64, floating-point numbers as float32.

    A pure function of (corpus, options, cluster, seed): reading is in no way affected by what was
    read before, so jobs may be computed in any order, or again. `seed` is the run's; one of the options' own counts
    more.
    """

    def __init__(self, corpus: Corpus, options: DataSource, cluster: Cluster, seed: int, section: str = "data") -> None:
        """Raises ConfigError if there are too few samples; `section` is what messages about the others name."""
        check_vocabulary(corpus.vocab_size)
        self.corpus = corpus
        self.section = section
        self.options = options
        self.seed = seeds.own_seed(options, seed)
        self._shards = split(corpus, options, cluster, self.seed)
        self._index = np.int32 if len(corpus) < 2**31 else np.int64  # of permutations; half the memory if possible
        self._permuted: list[dict[int, NDArray[Any]]] = [{} for _ in self._shards]
        self._begun = [0] * len(self._shards)  # the last epoch that was read from

    @property
    def sizes(self) -> list[int]:
        """Samples per shard and epoch."""
        return [len(rows) for rows in self._shards]

    @property
    def validation_samples(self) -> int:
        """How many samples `validation` gives."""
        return self.options.validation_samples

    def train(self, shard: int, first: int, count: int) -> torch.Tensor | Batch:
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
        return joined(pieces)

    def validation(self, batch_size: int, most: Optional[int] = None) -> Iterator[torch.Tensor | Batch]:
        """The tail of the corpus, in order, in batches, or the first `most` samples of it; the last may be smaller."""
        begins = len(self.corpus) - self.options.validation_samples
        end = len(self.corpus) if most is None else min(begins + most, len(self.corpus))
        for first in range(begins, end, batch_size):
            last = min(first + batch_size, end)
            yield self._read(slice(first, last), last - first)

    def _rows(self, shard: int, epoch: int, first: int, end: int) -> slice | NDArray[np.int64]:
        """Corpus rows of positions within one epoch."""
        if epoch > self._begun[shard]:
            self._announce(shard, epoch)
        rows = self._permutation(shard, epoch) if self.options.shuffle else self._shards[shard]
        if isinstance(rows, range):
            return slice(rows.start + first, rows.start + end)
        return rows[first:end].astype(np.int64)

    def _announce(self, shard: int, epoch: int) -> None:
        """Say that an epoch begins: the second, third, fifth, ninth …, of the shard that comes to it first."""
        if epoch.bit_length() > max(self._begun).bit_length():
            size = len(self._shards[shard])
            log.info("shard %d: epoch %d begins at sample %d", shard, epoch + 1, epoch * size)
        self._begun[shard] = epoch

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

    def _read(self, rows: slice | NDArray[np.int64], count: int) -> torch.Tensor | Batch:
        samples = self.corpus.read(rows)
        if self.corpus.vocab_size is None:
            return self._numbers(samples, count)
        expected = (count, self.options.sequence_length + 1)
        if isinstance(samples, tuple) or samples.shape != expected or samples.dtype.kind not in "iu":
            found = f"{len(samples)} arrays" if isinstance(samples, tuple) else f"{samples.dtype}{list(samples.shape)}"
            raise UserError(
                f"{self.section}: {type(self.corpus).__name__} returned {found} "
                f"where integers {list(expected)} were asked for"
            )
        tokens = samples.astype(np.int64, order="C")
        # An embedding's complaint would be an obscure one (on a GPU it ends the process). Unsigned: negative is large.
        if tokens.size and tokens.view(np.uint64).max() >= self.corpus.vocab_size:
            bad = samples[(tokens < 0) | (tokens >= self.corpus.vocab_size)].flat[0]
            raise UserError(
                f"{self.section}: the corpus holds token {bad}, but its vocab_size is {self.corpus.vocab_size}"
            )
        return torch.from_numpy(tokens)

    def _numbers(self, samples: NDArray[Any] | tuple[NDArray[Any], ...], count: int) -> torch.Tensor | Batch:
        tensors = []
        for part in samples if isinstance(samples, tuple) else (samples,):
            if not part.shape or len(part) != count or part.dtype.kind not in "biuf":
                raise UserError(
                    f"{self.section}: {type(self.corpus).__name__} returned {part.dtype}{list(part.shape)} "
                    f"where {count} samples were asked for"
                )
            kind = {"f": np.float32, "b": np.bool_}.get(part.dtype.kind, np.int64)
            tensors.append(torch.from_numpy(part.astype(kind, order="C")))
        return Batch(*tensors) if isinstance(samples, tuple) else tensors[0]


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
