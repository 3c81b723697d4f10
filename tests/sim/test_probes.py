"""Probes: jobs done again beside the run, other samples, and that nothing of the run is another for it."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Optional

import pytest
import torch

from halos.config.config import resolved
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.data.order import DataOrder
from halos.hooks import hookimpl
from halos.run.assembly import assemble
from halos.sim.ledger import Ledger
from halos.sim.probes import Probes, Recall
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from halos.testing.conformance.networks import small_cluster
from halos.testing.conformance.suite import JITTER
from halos.testing.recording import UNWRITTEN
from halos.testing.resuming import CHECKPOINTED
from halos.testing.situations import QuadraticProblem
from halos.training import Job
from halos.values.params import Layout, Params
from halos.values.records import Update

KEEPING = {
    "model": {"name": "testing_keeping"},
    "train": {"batch_size": 4, "optimizer": {"name": "adamw", "lr": 0.01}},
}


class Again:
    """Does every job again, from where it began and from elsewhere, when its update arrives."""

    def __init__(self, elsewhere: Optional[float] = None) -> None:
        self.elsewhere = elsewhere
        self.deltas: list[tuple[Params, Params]] = []  # of each job, the run's end, and that of the probe
        self.moments: list[Optional[Params]] = []

    def prepare(self, sim: Simulation) -> None:
        self.sim = sim
        recall = sim.probes.remember(lambda job: True)
        assert recall is not None
        self.recall: Recall = recall

    @hookimpl
    def on_update(self, update: Update) -> None:
        probes = self.sim.probes
        inner = self.recall(update)
        assert inner is not None and self.recall(update) is None, "kept once"
        job = probes.job(update)
        if self.elsewhere is not None:
            job = job._replace(start=update.start.map(lambda flat: torch.full_like(flat, self.elsewhere or 0.0)))
        other = probes.elsewhere(job, seed=0)
        for each in (other, job):
            ended = None if each is None else probes.again(each, inner)
        assert ended is not None
        self.deltas.append((update.params, ended))
        self.moments.append(probes.second_moments(update.worker))
        list(probes.predictions([update.start, update.params], 4, seed=0))
        assert probes.gradient(update.params, 4, seed=0) is not None


def watched(sections: Section, again: Again) -> Params:
    """The final parameters of a run in which every job is done again."""
    config, found = resolved(merge(sections, UNWRITTEN), [JITTER])
    with closing(assemble(config, found)) as run:
        again.prepare(run.simulation)
        found.manager.register(again)
        run.train()
        return run.simulation.params


def same(one: Params, other: Params) -> bool:
    return one.flat is not None and other.flat is not None and torch.equal(one.flat, other.flat)


@pytest.mark.parametrize("policy", ["diloco", "async_local_sgd", "halos"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_job_done_again_ends_where_it_did_and_leaves_the_run_as_it_was(policy: str, precision: str) -> None:
    """With dropout, batch norm and Adam: what a job draws, and what a worker keeps, counts."""
    sections = merge(tiny(policy={"name": policy}, budget={"local_steps": 24}), KEEPING)
    sections = merge(sections, {"train": {"precision": precision}})
    again = Again()
    assert same(watched(sections, again), record(sections, [JITTER]).simulation.params)
    assert len(again.deltas) >= 12 and all(same(*each) for each in again.deltas)


def test_a_job_from_elsewhere_goes_as_far_as_from_there() -> None:
    # A local step of 0.1 on ½ (θ − 1)² leaves 0.9 of the way: from 0.5, two steps end at 1 − 0.81 / 2.
    problem = QuadraticProblem(curvature=(1.0,))
    again = Again(elsewhere=0.5)
    watched(problem.sections(), again)
    for _, ended in again.deltas:
        assert ended.flat is not None and ended.flat.tolist() == [pytest.approx(1 - 0.81 * 0.5, abs=1e-15)]


def test_second_moments_are_those_of_the_workers_optimizer_without_their_bias() -> None:
    # ½ θ², from θ = 1 with steps of 1e-9 that change nothing: every gradient is 1, so v = 1 − β₂^t, and v̂ = 1.
    again = Again()
    model = {"name": "quadratic", "size": 1, "optimum": 0.0, "start": 1.0, "dtype": "float64"}
    train = {"optimizer": {"name": "adamw", "lr": 1e-9, "betas": [0.9, 0.5]}}
    watched(tiny(model=model, train=train), again)
    assert [each.flat.tolist() for each in again.moments if each is not None and each.flat is not None] == [
        [pytest.approx(1.0, abs=1e-6)]
    ] * 4
    sgd = Again()
    watched(tiny(), sgd)
    assert sgd.moments == [None] * 4


class Sized:
    """An executor with one shard of `size` samples."""

    def __init__(self, size: int) -> None:
        self.size = size

    def shard_sizes(self) -> list[int]:
        return [self.size]


def probes(executor: Any) -> Probes:
    cluster = small_cluster(1)
    return Probes(executor, DataOrder("shared", cluster), cluster, Ledger(), True)


def job(first: int, end: int, id: int = 0) -> Job:
    return Job(id, 0, None, 1, 0, first, end, 0, 0.0)  # type: ignore[arg-type]


def test_other_samples_are_of_the_same_epoch_and_none_of_them_the_jobs() -> None:
    # A shard of 10, the job has positions 13 to 16 (exclusive), so 3 to 6 of the second epoch: others of as many are
    # 0-3, 6-9 and 7-10 of it.
    asked = probes(Sized(10))
    found = {
        (other.first_sample, other.end_sample) for id in range(60) if (other := asked.elsewhere(job(13, 16, id), 0))
    }
    assert found == {(10, 13), (16, 19), (17, 20)}


@pytest.mark.parametrize(("size", "first", "end"), [(10, 2, 8), (10, 8, 12), (3, 0, 2)])
def test_there_are_no_other_samples_where_there_is_no_room_for_them(size: int, first: int, end: int) -> None:
    assert probes(Sized(size)).elsewhere(job(first, end), 0) is None


def test_an_executor_without_the_methods_says_nothing() -> None:
    asked = probes(object())
    assert asked.remember(lambda job: True) is None
    assert asked.gradient(Params(Layout({"theta": (1,)}), None), 1, 0) is None and not asked.differentiates
    assert asked.second_moments(0) is None
    assert list(asked.predictions([], 1, 0)) == []
    assert asked.elsewhere(job(0, 1), 0) is None


class Remembering:
    """An executor that keeps states of jobs 0 to 5, each named after its job, as it is told; `kept` are those left."""

    def __init__(self) -> None:
        self.kept: dict[int, dict[str, Any]] = {}

    def remember(self, wanted: Any) -> None:
        self.kept = {job: {"of": job} for job in range(6) if wanted(job)}

    def recall(self, job: int) -> Optional[dict[str, Any]]:
        return self.kept.pop(job, None)

    def probe(self, job: Job, inner: dict[str, Any]) -> Any:
        raise NotImplementedError


def update(id: int) -> Update:
    params = Params(Layout({"theta": (1,)}), None)
    return Update(id, 0, 0, params, params, 1, 0.0, 1.0, 0, (0, 1), 0, (), (), (0.0, 1.0))


@pytest.mark.parametrize("first", [0, 1])
def test_each_of_two_who_remember_recalls_what_it_would_alone(first: int) -> None:
    """Even jobs for one, and every third for the other, whoever comes first; both ask for every job, and twice."""
    wanted = [lambda job: job % 2 == 0, lambda job: job % 3 == 0]
    expected = [[0, 2, 4], [0, 3]]
    executor = Remembering()
    asked = probes(executor)
    several = [asked.remember(each) for each in wanted]
    assert sorted(executor.kept) == [0, 2, 3, 4]
    found: list[list[int]] = [[], []]
    for id in range(6):
        for asker in (first, 1 - first, first, 1 - first):
            recall = several[asker]
            assert recall is not None
            inner = recall(update(id))
            if inner is not None:
                assert inner == {"of": id}
                found[asker].append(id)
        assert id not in executor.kept and asked._owed == {}, "what all have recalled is kept no longer"
    assert found == expected


def test_two_who_remember_do_every_job_again_in_a_run() -> None:
    """Of which one is there as well when a run goes on from a checkpoint: it would not be another run either."""
    sections = merge(merge(tiny(budget={"local_steps": 12}), KEEPING), CHECKPOINTED)
    config, found = resolved(sections, [JITTER])
    both = Again(), Again()
    with closing(assemble(config, found)) as run:
        for again in both:
            again.prepare(run.simulation)
            found.manager.register(again)
        run.train()
    for again in both:
        assert len(again.deltas) == 6 and all(same(*each) for each in again.deltas)


def test_a_job_that_diverges_elsewhere_ends_nowhere() -> None:
    again = Again(elsewhere=1e30)
    with pytest.raises(AssertionError):  # its own `ended is not None`
        watched(tiny(train={"optimizer": {"name": "sgd", "lr": 1e10}}, budget={"local_steps": 4}), again)
    assert again.deltas == []


def test_a_run_with_checkpoints_is_probed_as_well() -> None:
    sections = merge(tiny(), CHECKPOINTED)
    config, found = resolved(sections)
    again = Again()
    with closing(assemble(config, found)) as run:
        again.prepare(run.simulation)
        found.manager.register(again)
        run.train()
    assert len(again.deltas) == 4 and all(same(*each) for each in again.deltas)
