"""From positions to tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halos.data import ArrayCorpus, DataOptions
from halos.data.feed import Feed, split
from halos.errors import ConfigError, UserError
from halos.world.cluster import Cluster, Region, Worker


@dataclass(kw_only=True)
class Options(DataOptions):
    """A data source that is never opened; two predicted tokens per sample, the last two samples held out."""

    sequence_length: int = 2
    validation_samples: int = 2

    def vocabulary(self) -> Optional[int]:
        return None

    def open(self, seed: int) -> ArrayCorpus:
        raise NotImplementedError


def cluster(*workers_of_region: int) -> Cluster:
    regions: list[Region] = []
    workers: list[Worker] = []
    for index, count in enumerate(workers_of_region):
        members = tuple(Worker(len(workers) + i, index, 1.0) for i in range(count))
        workers += members
        regions.append(Region(index, f"region-{index}", members))
    return Cluster(tuple(regions), tuple(workers), 1.0, 0.0)


def corpus(samples: int, sources: Optional[Sequence[int]] = None) -> ArrayCorpus:
    """Sample i is the tokens i, i, i."""
    rows = np.repeat(np.arange(samples, dtype=np.uint16)[:, None], 3, axis=1)
    return ArrayCorpus(rows, max(samples, 1), "0" * 64, None if sources is None else np.array(sources))


def feed(samples: int = 12, at: Optional[Cluster] = None, seed: int = 1, **options: Any) -> Feed:
    return Feed(corpus(samples), Options(**options), at or cluster(1), seed)


def rows(batch: torch.Tensor) -> list[int]:
    return batch[:, 0].tolist()


# Order


def test_unshuffled_samples_come_in_the_order_of_the_corpus() -> None:
    batch = feed(shuffle=False).train(0, 3, 4)
    assert batch.tolist() == [[3, 3, 3], [4, 4, 4], [5, 5, 5], [6, 6, 6]]
    assert batch.dtype == torch.int64
    assert batch.is_contiguous()


def test_unshuffled_reading_asks_for_a_slice() -> None:
    asked: list[Any] = []

    class Watched(ArrayCorpus):
        def read(self, rows: Any) -> Any:
            asked.append(rows)
            return super().read(rows)

    watched = Watched(corpus(12).samples, 12, "")
    Feed(watched, Options(shuffle=False), cluster(1), 1).train(0, 3, 4)
    Feed(watched, Options(shuffle=False, shards="by_region"), cluster(1, 1), 1).train(1, 1, 2)
    assert asked == [slice(3, 7), slice(6, 8)]


def test_an_epoch_visits_every_training_sample_once_and_never_the_tail() -> None:
    order = rows(feed().train(0, 0, 10))
    assert sorted(order) == list(range(10))
    assert order != list(range(10))


def test_the_tail_is_trained_on_if_it_is_not_held_out() -> None:
    assert sorted(rows(feed(hold_out=False).train(0, 0, 12))) == list(range(12))


def test_each_epoch_has_an_order_of_its_own() -> None:
    one = feed()
    first, second = rows(one.train(0, 0, 10)), rows(one.train(0, 10, 10))
    assert sorted(second) == list(range(10))
    assert second != first


def test_another_seed_gives_another_order_and_the_same_seed_the_same() -> None:
    assert rows(feed(seed=1).train(0, 0, 10)) == rows(feed(seed=1).train(0, 0, 10))
    assert rows(feed(seed=1).train(0, 0, 10)) != rows(feed(seed=2).train(0, 0, 10))


def test_a_range_may_straddle_the_end_of_an_epoch() -> None:
    assert rows(feed(shuffle=False).train(0, 8, 4)) == [8, 9, 0, 1]
    assert rows(feed(samples=5, shuffle=False).train(0, 2, 8)) == [2, 0, 1, 2, 0, 1, 2, 0]


@given(reads=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25)), min_size=1, max_size=8), shuffle=st.booleans())
def test_reading_depends_on_nothing_read_before(reads: list[tuple[int, int]], shuffle: bool) -> None:
    whole = rows(feed(shuffle=shuffle).train(0, 0, 100))
    used = feed(shuffle=shuffle)
    for first, count in reads:
        assert rows(used.train(0, first, count)) == whole[first : first + count]


def test_only_two_epochs_of_a_shard_are_kept() -> None:
    one = feed()
    for epoch in range(5):
        one.train(0, 10 * epoch, 1)
    assert list(one._permuted[0]) == [3, 4]


# The end


def test_a_new_epoch_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "halos.data")
    one = feed()
    for first in range(0, 30, 5):
        one.train(0, first, 5)
    one.train(0, 10, 5)
    assert caplog.messages == ["shard 0: epoch 2 begins at sample 10", "shard 0: epoch 3 begins at sample 20"]


def test_epochs_are_said_at_doublings_by_whichever_shard_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "halos.data")
    one = feed(12, cluster(1, 1), shards="by_region")  # 5 samples each
    for first in range(0, 100 * 5, 5):
        one.train(0, first, 5)
        one.train(1, first, 5)
    said = [(epoch, 5 * (epoch - 1)) for epoch in (2, 3, 5, 9, 17, 33, 65)]
    assert caplog.messages == [f"shard 0: epoch {epoch} begins at sample {sample}" for epoch, sample in said]


def test_without_wrapping_the_last_sample_can_be_read_and_no_further() -> None:
    one = feed(wrap=False)
    assert len(one.train(0, 8, 2)) == 2
    with pytest.raises(
        UserError, match=r"^data.wrap: false, but shard 0 has 10 samples and samples 8 to 10 were asked"
    ):
        one.train(0, 8, 3)


# Validation


def test_validation_is_the_tail_in_order() -> None:
    one = feed(samples=12, validation_samples=5)
    assert [rows(batch) for batch in one.validation(2)] == [[7, 8], [9, 10], [11]]
    assert [rows(batch) for batch in one.validation(2, 3)] == [[7, 8], [9]]
    assert [rows(batch) for batch in one.validation(4, 9)] == [[7, 8, 9, 10], [11]]
    assert one.validation_samples == 5
    assert one.sizes == [7]


def test_there_may_be_no_validation() -> None:
    one = feed(samples=12, validation_samples=0)
    assert list(one.validation(4)) == []
    assert one.sizes == [12]


# Shards


def test_iid_shards_are_disjoint_random_and_equally_large() -> None:
    parts = split(corpus(13), Options(shards="iid"), cluster(2, 1), 1)  # 11 to train on, 3 workers
    taken = [int(row) for part in parts for row in part]
    assert [len(part) for part in parts] == [3, 3, 3]
    assert len(set(taken)) == 9
    assert max(taken) < 11
    assert taken != sorted(taken)


def test_regions_get_neighbouring_samples_and_one_without_workers_gets_none() -> None:
    parts = split(corpus(13), Options(shards="by_region"), cluster(2, 0, 1), 1)
    assert parts == [range(0, 5), range(0), range(5, 11)]


def test_a_shuffled_region_still_sees_only_its_own_samples() -> None:
    one = feed(12, cluster(1, 1), shards="by_region")
    assert sorted(rows(one.train(0, 0, 5))) == [0, 1, 2, 3, 4]
    assert sorted(rows(one.train(1, 0, 5))) == [5, 6, 7, 8, 9]


def test_whole_sources_go_to_regions_the_biggest_first() -> None:
    # In the first ten: source 7 five times, 8 three, 9 twice; so 7 | 8, 9. The tail (source 5) is nobody's.
    sources = [7, 8, 9, 7, 7, 8, 9, 7, 8, 7, 5, 5]
    parts = split(corpus(12, sources), Options(shards="by_source"), cluster(1, 0, 1), 1)
    assert [list(part) for part in parts] == [[0, 3, 4, 7, 9], [], [1, 2, 5, 6, 8]]


def test_a_corpus_need_only_keep_the_protocol() -> None:
    class Foreign:
        vocab_size = 6
        hash = "0"
        sources = (1, 1, 1, 1, 0, 0)

        def __len__(self) -> int:
            return 6

        def read(self, rows: Any) -> Any:
            return np.repeat(np.arange(6)[rows][:, None], 3, axis=1)

    one = Feed(Foreign(), Options(shards="by_source", validation_samples=0), cluster(1, 1), 1)
    assert sorted(rows(one.train(0, 0, 4))) == [0, 1, 2, 3]
    assert sorted(rows(one.train(1, 0, 2))) == [4, 5]


@given(
    samples=st.integers(10, 60),
    shards=st.sampled_from(["shared", "iid", "by_region", "by_source"]),
    regions=st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any),
    shuffle=st.booleans(),
)
def test_shards_are_disjoint_and_never_touch_the_tail(
    samples: int, shards: str, regions: list[int], shuffle: bool
) -> None:
    at = cluster(*regions)
    source = np.arange(samples) % max(len(at.regions), 4)
    try:
        one = Feed(corpus(samples, source.tolist()), Options(shards=shards, shuffle=shuffle), at, 3)
    except ConfigError:
        assert samples - 2 < len(at.workers)
        return
    seen = [row for shard, size in enumerate(one.sizes) if size for row in rows(one.train(shard, 0, size))]
    assert len(seen) == len(set(seen))
    assert max(seen) < samples - 2
    left_over = samples - 2 - len(seen)
    assert left_over < len(at.workers) if shards == "iid" else left_over == 0


# Mistakes


@pytest.mark.parametrize(
    ("samples", "sources", "options", "problem"),
    [
        (1, None, {}, "validation_samples: 2, but the corpus has 1 samples"),
        (2, None, {}, "validation_samples: 2 of 2 samples are held out; none is left to train on (hold_out: false"),
        (4, None, {"shards": "iid"}, "shards: iid: 2 samples to train on are too few for 3 workers"),
        (3, None, {"shards": "by_region"}, "shards: by_region: 1 samples to train on are too few for 2 regions"),
        (9, None, {"shards": "by_source"}, "shards: by_source, but this corpus does not say which source"),
        (9, [0] * 9, {"shards": "by_source"}, "shards: by_source: 1 sources to train on are too few for 2 regions"),
        (9, [0, 1], {"shards": "by_source"}, "shards: by_source: 9 samples, but sources for 2"),
    ],
)
def test_a_shard_that_would_be_empty_is_an_error(
    samples: int, sources: Optional[list[int]], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Feed(corpus(samples, sources), Options(**options), cluster(2, 1), 1)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.array([[1, 2, 30]] * 9), "data: the corpus holds token 30, but its vocab_size is 30"),
        (np.array([[1, -2, 3]] * 9), "data: the corpus holds token -2, but its vocab_size is 30"),
        (np.zeros((9, 4), int), "data: ArrayCorpus returned int64[3, 4] where integers [3, 3] were asked for"),
        (np.zeros((9, 3)), "data: ArrayCorpus returned float64[3, 3] where integers [3, 3] were asked for"),
    ],
)
def test_samples_that_no_model_could_take_are_an_error(samples: Any, problem: str) -> None:
    one = Feed(ArrayCorpus(samples, 30, ""), Options(), cluster(1), 1)
    with pytest.raises(UserError) as caught:
        one.train(0, 0, 3)
    assert str(caught.value) == problem


def test_what_is_read_is_a_copy() -> None:
    source = ArrayCorpus(np.ones((9, 3), np.int64), 30, "")
    Feed(source, Options(shuffle=False), cluster(1), 1).train(0, 0, 3).zero_()
    assert source.samples.min() == 1
