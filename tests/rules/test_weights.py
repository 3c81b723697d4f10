"""Contribution weights, by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from halos import ArrayCorpus, ConfigError, DataOptions, Register, hookimpl
from halos.config.config import resolved
from halos.policies.diloco import DiLoCo
from halos.rules.weights import ByWorker, Uniform, factor
from halos.run.assembly import assemble
from halos.testing import record, tiny
from halos.testing.resuming import problem
from halos.world.cluster import Worker

UNEQUAL = {
    "cluster": {"regions": [{"workers": [1.0, 0.5]}]},
    "steps": {"name": "by_speed", "base": 4},
    "budget": {"local_steps": 6},
}


@dataclass
class Asked:
    """Half of every pseudo-gradient that took fewer steps than the mean, which is asked about."""

    def factor(self, steps: int, mean_steps: float) -> float:
        return 0.5 if steps < mean_steps else 1.0


@hookimpl
def register_contribution_weights(register: Register) -> None:
    register("asked", Asked)


def test_uniformly_all_count_as_they_are() -> None:
    assert [Uniform().factor(steps, 3.0) for steps in (2, 3, 4)] == [1.0, 1.0, 1.0]
    assert [update.factor for update in record(tiny(**UNEQUAL)).updates] == [1.0, 1.0]


def test_a_factor_is_of_the_steps_against_the_mean_of_the_round_and_scales_the_pseudo_gradient() -> None:
    run = record(tiny(**UNEQUAL, weights={"name": "asked"}, model={"dtype": "float64", "size": 1}), plugins=[__file__])
    assert [(update.steps, update.factor) for update in run.updates] == [(4, 1.0), (2, 0.5)]
    # From 0 to 1 − 0.9⁴ and to 1 − 0.9², which counts for half; the outer step is the mean of both.
    expected = ((1 - 0.9**4) + 0.5 * (1 - 0.9**2)) / 2
    assert abs(run.thetas[0] - expected) < 1e-12


def test_weights_of_workers_count_in_proportion_among_those_that_are_averaged() -> None:
    one, other = Worker(0, 0, 1.0), Worker(1, 0, 0.5)
    weights = ByWorker([3.0, 1.0])
    among = [(one, 4), (other, 2)]
    assert [factor(weights, worker, steps, among) for worker, steps in among] == [1.5, 0.5]
    assert [factor(weights, worker, 7, [(worker, 7)]) for worker in (one, other)] == [1.0, 1.0]
    # From 0 to 1 − 0.9² both; three quarters of it, and one.
    unequal = dict(UNEQUAL, model={"dtype": "float64", "size": 1})
    run = record(tiny(**unequal, weights={"name": "by_worker", "workers": [3, 1]}))
    assert [update.factor for update in run.updates] == [1.5, 0.5]
    assert run.thetas[0] == pytest.approx(0.75 * (1 - 0.9**4) + 0.25 * (1 - 0.9**2), abs=1e-12)


def test_equal_weights_of_workers_are_exactly_one() -> None:
    workers = [Worker(index, 0, 1.0) for index in range(7)]
    for weight in (0.1, 1 / 3, 1e300):
        weights = ByWorker([weight] * 7)
        assert {factor(weights, worker, 3, [(each, 3) for each in workers]) for worker in workers} == {1.0}


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ([1.0, 0.0], "weights.workers[1]: 0.0 is not a positive, finite weight"),
        ([1.0, float("inf")], "weights.workers[1]: inf is not a positive, finite weight"),
        ([1.0, 2.0, 3.0], "weights.workers: has 3 weights for 2 workers"),
    ],
)
def test_weights_that_are_none_are_refused_by_their_key(workers: list[float], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        record(tiny(weights={"name": "by_worker", "workers": workers}))
    assert str(refused.value) == said


def test_a_policy_that_uses_no_weights_refuses_them() -> None:
    class Own(DiLoCo):
        weighs: ClassVar[bool] = False

    config, plugins = resolved(tiny(weights={"name": "by_worker"}))
    config.policy = Own()
    with pytest.raises(ConfigError, match=r"^weights: 'by_worker' has no part in policy "):
        assemble(config, plugins)
    assert record(tiny(), policy=Own()).commits


def test_weights_by_data_are_the_samples_of_a_workers_shard_in_parts_of_those_who_share_it() -> None:
    """Of 48 samples in three sources of 32, 8 and 8, the first is region 0's and the others are region 1's."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0]}, {"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
        data={"name": "lopsided", "validation_samples": 0, "shards": "by_source"},
        model={"dtype": "float64", "size": 1}, weights="by_data", budget={"local_steps": 6},
    )  # fmt: skip
    run = record(sections, plugins=[__file__])
    assert [run.simulation.samples(worker) for worker in run.simulation.workers] == [32.0, 8.0, 8.0]
    assert [update.factor for update in run.updates] == [2.0, 0.5, 0.5]
    timing = record(sections | {"executor": "timing"}, plugins=[__file__])
    assert [update.factor for update in timing.updates] == pytest.approx([math.nan] * 3, nan_ok=True)
    assert problem(sections, [__file__]) is None  # cut anywhere and resumed, it is the same


@dataclass(kw_only=True)
class Lopsided(DataOptions):
    """Sources of 32, 8 and 8 samples."""

    def vocabulary(self) -> int:
        return 2

    def open(self, seed: int) -> ArrayCorpus:
        sources = np.repeat([0, 1, 2], [32, 8, 8])
        return ArrayCorpus(np.zeros((48, self.sequence_length + 1), np.int64), 2, "none", sources)


@hookimpl
def register_data_sources(register: Register) -> None:
    register("lopsided", Lopsided)
