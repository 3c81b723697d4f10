"""Conformance of executors: outcomes that depend on their jobs, and not on when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from halos.config.config import Config, resolved
from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.testing.conformance.networks import small_cluster
from halos.testing.conformance.suite import JITTER, Suite
from halos.testing.recording import Recording
from halos.testing.situations import Situation
from halos.testing.witness import fingerprint, first_difference, timeline, watching
from halos.training import Executor, Job, Outcome, Task
from halos.values.params import Params


class ExecutorConformance(Suite):
    """Given jobs by hand, and in runs that are compared with those of `inline`."""

    kind: ClassVar[str] = "executor"
    tolerance: ClassVar[float] = 1e-5  # of trained parameters, relative to those of `inline`

    def test_outcomes_fit_their_jobs(self, section: Section) -> None:
        """Parameters of the model's size, as hollow as the initial ones; losses with the chunks they are means of."""
        with self.opened(section) as (executor, start):
            for worker, steps in ((0, 1), (1, 3), (0, 5)):
                outcome = self.result(executor, job(worker, worker, start, steps))
                fits = outcome.params.size == start.size and outcome.params.hollow == start.hollow
                self.check(fits, section, f"{start} was trained to {outcome.params}")
                chunks = len(outcome.losses) == len(outcome.chunks) and sum(outcome.chunks) in (0, steps)
                words = f"{steps} steps gave {len(outcome.losses)} losses of {outcome.chunks} steps each"
                self.check(chunks and bool(outcome.losses) != start.hollow, section, words)

    def test_when_a_result_is_asked_for_does_not_matter(self, section: Section) -> None:
        """Jobs of different workers, under way together or one after the other, evaluations in between or not."""
        found = []
        for together in (False, True):
            with self.opened(section) as (executor, start):
                jobs = [job(0, 0, start, 3), job(1, 1, start, 2)]
                if together:
                    for given in jobs:
                        executor.submit(given)
                    executor.evaluate(start, "validation")
                    outcomes = [executor.result(given) for given in reversed(jobs)][::-1]
                else:
                    outcomes = [self.result(executor, given) for given in jobs]
                found.append(fingerprint(outcomes))
        self.check(found[0] == found[1], section, "jobs under way together come out otherwise than one by one")

    def test_modifies_nothing(self, section: Section) -> None:
        with watching() as witness, self.opened(section) as (executor, start):
            for index in range(4):
                outcome = self.result(executor, job(index, index % 2, start, 2))
                executor.evaluate(outcome.params, "validation")
        modified = witness.modified()
        self.check(not modified, section, f"parameters were modified in place, those made at {', '.join(modified)}")

    def test_a_probe_is_the_job_again_and_leaves_no_trace(self, section: Section) -> None:
        """Where it has `probe`: with its inner state, start and samples a job ends where it did, before and after."""
        with self.opened(section) as (executor, start):
            probing: Any = executor
            if not all(hasattr(executor, name) for name in ("remember", "recall", "probe")):
                pytest.skip("does no job again")
            jobs = [job(index, index % 2, start, 3) for index in range(4)]
            expected = [fingerprint(self.result(executor, given)) for given in jobs]
        with self.opened(section) as (executor, start):
            probing = executor
            probing.remember(lambda index: index == 2)
            found, jobs = [], [given._replace(start=start) for given in jobs]
            for given in jobs:
                found.append(fingerprint(self.result(executor, given)))
                inner = probing.recall(given.id)
                self.check((inner is None) == (given.id != 2), section, f"of job {given.id} it remembers {inner}")
                if inner is not None:
                    elsewhere = given._replace(start=start * 2.0, first_sample=160, end_sample=163)
                    probing.probe(elsewhere, inner)
                    again = fingerprint(probing.probe(given, inner))
                    self.check(again == found[-1], section, "done again, a job ends elsewhere")
            self.check(probing.recall(2) is None, section, "it remembers a job that was recalled")
        self.check(found == expected, section, "with probes in between, jobs come out otherwise")

    def test_the_gradient_of_the_probe_batch_is_that_of_its_loss(self, section: Section) -> None:
        """Where it has `probe_gradient`: against differences of `predictions`, exact of a quadratic; and no trace."""
        with self.opened(section) as (executor, start):
            probing: Any = executor
            if not all(hasattr(executor, name) for name in ("predictions", "probe_gradient")):
                pytest.skip("gives no gradient of the probe batch")
            jobs = [job(index, index % 2, start, 3) for index in range(3)]
            expected = [fingerprint(self.result(executor, given)) for given in jobs]
        with self.opened(section) as (executor, start):
            probing, found = executor, []
            for given in jobs:
                outcome = self.result(executor, given._replace(start=start))
                found.append(fingerprint(outcome))
                slope = probing.probe_gradient(outcome.params, 3, 0)
                for along in (slope, start + slope):
                    ends = [outcome.params + along, outcome.params - along]
                    sums, samples = [0.0, 0.0], 0
                    for batch in probing.predictions(ends, 3, 0):  # of so many, or of as many as there are
                        sums = [total + each.loss * each.samples for total, each in zip(sums, batch)]
                        samples += batch[0].samples
                    rise, said = (sums[0] - sums[1]) / samples / 2, slope.dot(along)
                    words = f"along a direction the loss rises by {rise}, by its gradient {said}"
                    self.check(abs(rise - said) <= 1e-4 * (abs(rise) + slope.norm() * along.norm()), section, words)
        self.check(found == expected, section, "with gradients in between, jobs come out otherwise")

    def test_evaluates_alike_each_time(self, section: Section) -> None:
        with self.opened(section) as (executor, start):
            one = executor.evaluate(start, "validation")
            self.result(executor, job(0, 0, start, 3))
            other = executor.evaluate(start, "validation")
        self.check(one == other, section, f"the initial loss is {one}, and after a job {other}")
        self.check(
            (one is None) == start.hollow, section, f"the loss of {'hollow' if start.hollow else 'real'} is {one}"
        )

    def test_closes_also_what_was_never_opened(self, section: Section) -> None:
        executor: Executor = self.build(section)
        with self.about(section, ", closed before it was opened"):
            executor.close()

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    @pytest.mark.parametrize("workers", [1, 2, 16])
    def test_runs_are_those_of_inline(self, section: Section, workers: int, policy: str, optimizer: str) -> None:
        """In every time, and, where training is real, in the parameters."""
        ours, theirs = (self.run_of(each, workers, policy, optimizer) for each in (section, {"name": "inline"}))
        where = f"{workers} workers, {policy}, {optimizer}"
        what = first_difference(timeline(ours), timeline(theirs))
        self.check(what is None, section, f"{where}: beside inline, {what}")
        mine, inline = ours.simulation.params, theirs.simulation.params
        if mine.flat is not None and inline.flat is not None:
            away = (mine.map(lambda flat: flat.cpu()) - inline.map(lambda flat: flat.cpu())).norm() / inline.norm()
            words = f"{where}: the final model is {away:.3g} away from inline's, relative to its norm"
            self.check(away <= self.tolerance, section, words)

    def test_what_modules_keep_and_draw_is_that_of_inline(self, section: Section) -> None:
        """Buffers, which evaluations have the mean of, and dropout; where training is real."""
        runs = []
        for executor in (section, {"name": "inline"}):
            sections = Situation(2, "jitter").sections(3, 3) | {
                "model": {"name": "testing_keeping"},
                "executor": executor,
            }
            runs.append(self.record(section, merge(sections, {"train": {"batch_size": 4}}), ", batch norm and dropout"))
        ours, theirs = ([each.loss for each in run.evaluations] for run in runs)
        alike = len(ours) == len(theirs) and all(abs(a - b) <= self.tolerance * b for a, b in zip(ours, theirs))
        hollow = runs[0].simulation.params.hollow
        self.check(hollow or alike, section, f"with batch norm and dropout its losses are {ours}, inline's {theirs}")

    def run_of(self, section: Section, workers: int, policy: str, optimizer: str) -> Recording:
        """A run by this executor."""
        sections = Situation(workers, "jitter").sections(3, 3) | {"policy": {"name": policy}, "executor": section}
        trained = {"optimizer": {"name": optimizer, "lr": 0.05}}
        return self.record(section, merge(sections, {"train": trained}), f", {workers} workers, {policy}")

    @contextmanager
    def opened(self, section: Section) -> Iterator[tuple[Executor, Params]]:
        """A new executor and its initial parameters; closed afterwards."""
        config = self.config(section)
        executor = config.executor
        task = Task(config.model, config.data, config.train, small_cluster(1), config.seed, {})
        with self.about(section):
            try:
                yield executor, executor.open(task)
            finally:
                executor.close()

    def config(self, section: Section) -> Config:
        """Return the configuration of a quadratic with noise, trained by the executor."""
        sections = Situation(2, "free").sections(2, 4) | {"executor": section}
        return resolved(sections, [*self.plugins, JITTER])[0]

    def result(self, executor: Executor, given: Job) -> Outcome:
        """Submit a job, and return its outcome at once."""
        executor.submit(given)
        return executor.result(given)


def job(index: int, worker: int, start: Params, steps: int) -> Job:
    """A job on samples of its own."""
    return Job(index, worker, start, steps, 0, 16 * index, 16 * index + steps, 0, 0.0)
