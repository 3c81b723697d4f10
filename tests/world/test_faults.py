"""Fault models: chance as often as said, and what cannot be by its key."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest

from halos.errors import ConfigError
from halos.testing import record, tiny
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Crashes, LinkFault, Links, MessageLoss, NoFaults, impairments
from tests.faulty import crash, link, outage


def test_messages_are_lost_as_often_as_said() -> None:
    model = MessageLoss(probability=0.1)
    model.connect(Cluster((), (), 1.0, 0.0), seed=7)
    lost = [model.loses(message) for message in range(20_000)]
    assert fmean(lost) == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 20_000))
    pairs = fmean(one and other for one, other in pairwise(lost))  # and independently
    assert pairs == pytest.approx(0.01, abs=4 * math.sqrt(0.01 * 0.99 / 20_000))


def test_random_crashes_are_exponential_with_the_means_given() -> None:
    workers = tuple(Worker(each, 0, 1.0) for each in range(50))
    model = Crashes(between_failures_hours=2.0, to_repair_hours=0.25)
    model.connect(Cluster((Region(0, "here", workers),), workers, 1.0, 0.0), seed=7)
    ups, downs = [], []
    for worker in workers:
        now = 0.0
        for _ in range(100):
            start, end = model.outage(worker, now)
            ups.append((start - now) / 3600)
            downs.append((end - start) / 3600)
            assert model.outage(worker, (start + end) / 2) == (start, end)  # the same if asked again
            now = end
        assert model.outage(worker, 0.0)[0] == pytest.approx(3600 * ups[-100])
    count = len(ups)
    assert fmean(ups) == pytest.approx(2.0, abs=4 * 2.0 / math.sqrt(count))
    assert fmean(downs) == pytest.approx(0.25, abs=4 * 0.25 / math.sqrt(count))
    longer = fmean(each > 2.0 for each in ups)
    assert longer == pytest.approx(math.exp(-1), abs=4 * math.sqrt(math.exp(-1) * (1 - math.exp(-1)) / count))


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (crash(2, 1.0), "faults.at[0].worker: 2 is not a worker, 0 to 1"),
        (outage(1, 1.0), "faults.at[0].region: 1 is not a region, 0 to 0"),
        (link(1.0, 1.0, 0.5), "faults.at[0].dst: 1 is not a region, 0 to 0"),
        (crash(0, 1.0, 0.0), "faults.at[0].seconds: 0.0 is not a positive time"),
        ({"name": "message_loss", "probability": 1.0}, "faults.probability: 1.0 is not in [0, 1)"),
        ({"name": "none", "samples": "some"}, "faults.samples: 'some' is not one of lost, again"),
        ({"name": "several", "of": [outage(1, 1.0)]}, "faults.of[0].at[0].region: 1 is not a region, 0 to 0"),
        (
            {"name": "several", "of": [crash(0, 1.0, detection_seconds=3.0)]},
            "faults.of[0].detection_seconds: belongs beside `of`, where it is said for all",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_faults_that_do_not_fit_are_refused_by_key(faults: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        record(tiny(faults=faults))
    assert str(refused.value) == said


def test_when_links_are_impaired_is_said_once_for_each_interval_up_to_the_end() -> None:
    model = Links(
        at=[
            LinkFault(0, 1, 2.0, 3.0, share=0.5, both_ways=False),
            LinkFault(0, 1, 5.0, 1.0, share=0.5, both_ways=False),  # goes on as before: one interval
            LinkFault(0, 1, 9.0, 1.0, share=1.0, both_ways=False),  # takes nothing away
            LinkFault(1, 1, 8.0),
        ]
    )
    workers = (Worker(0, 0, 1.0), Worker(1, 1, 1.0))
    model.connect(Cluster((Region(0, "a", workers[:1]), Region(1, "b", workers[1:])), workers, 1.0, 0.0), seed=0)
    assert list(impairments(model, 2, 10.0)) == [(0, 1, 2.0, 6.0, 0.5), (1, 1, 8.0, 10.0, 0.0)]
    assert list(impairments(model, 2, 4.0)) == [(0, 1, 2.0, 4.0, 0.5)]
    assert list(impairments(NoFaults(), 2, 10.0)) == []
