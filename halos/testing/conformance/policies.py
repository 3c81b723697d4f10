"""Conformance of sync policies, whatever their algorithm."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import pytest
import torch

from halos.config.yaml_text import Section
from halos.errors import ConfigError
from halos.rules.telling import merge_rules
from halos.testing.conformance.suite import JITTER, Suite
from halos.testing.recording import Recording, record, tiny
from halos.testing.resuming import problem
from halos.testing.situations import SITUATIONS, QuadraticProblem, Situation
from halos.testing.witness import everything, first_difference, timeline, watching
from halos.values.params import Params
from halos.values.records import Commit, Update

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Observed:
    """A run, and where parameters were made that somebody modified in it."""

    recording: Recording
    modified: list[str]


# What shows in any run is asked where runs are short, and of many workers that are all unequal.
SHORT = [situation for situation in SITUATIONS if situation.workers == 2]
TELLING = [*SHORT, Situation(8, "jitter")]
LATE = [situation for situation in SITUATIONS if situation.workers > 1 and situation.links != "free"]
_OBSERVED: dict[tuple[type[Any], str, Situation], Observed] = {}  # by suite, section and situation


class PolicyConformance(Suite):
    """Runs on 1, 2 and 8 workers, over free and slow links, with jitter; see docs/plugins.md for what is asked."""

    kind: ClassVar[str] = "policy"
    rounds: ClassVar[int] = 6  # of a run
    rounds_to_optimum: ClassVar[int] = 400  # at the most
    tolerance: ClassVar[float] = 1e-6  # of the optimum, in units of the start's distance; of eight workers its root
    looks_at_values: ClassVar[bool] = False  # whether it branches on a norm, so that its timeline needs training

    def least_steps(self, section: Section) -> int:
        """The fewest local steps that a job may have; most runs are made with twice as many."""
        return 1

    def seconds(self, section: Section, rounds: int, compute: float, all_reduce: float) -> Optional[float]:
        """The closed form of a run's time, if there is one: so many rounds on equal workers, each `compute` long."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """The closed form is only tested of those that have one."""
        if metafunc.function.__name__ != "test_takes_the_time_of_its_closed_form":
            super().pytest_generate_tests(metafunc)
            return
        timed = [subject for subject in self.subjects() if self.seconds(subject, 6, 2.0, 1.0) is not None]
        cases = [
            (subject, workers, transfer) for subject in timed for workers in (1, 2, 8) for transfer in (0.1, 1.0, 3.0)
        ]
        ids = [f"{subject['name']}-{workers}-{transfer}" for subject, workers, transfer in cases]
        metafunc.parametrize(("section", "workers", "transfer"), cases, ids=ids)

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_spends_the_budget(self, section: Section, situation: Situation) -> None:
        """At least the budget is committed or dropped, and nothing is committed after the commit that crosses it."""
        run = self.observe(section, situation).recording
        ledger, commits = run.simulation.ledger, run.global_commits
        budget, cap = run.config.budget.local_steps, run.config.budget.seconds
        assert budget is not None, "a situation has one"
        counts = f"{ledger.trained} local steps trained, {ledger.committed} committed, {ledger.dropped} dropped"
        where = f"{situation}, {run.simulation.now:.6g} s: {counts}"
        self.check(ledger.committed > 0, section, f"{where}; it has forgotten sim.commit")
        self.check(run.simulation.now < cap, section, f"{where}; it seems to go on for ever (budget: {budget})")
        self.check(
            ledger.committed + ledger.dropped >= budget, section, f"{where}; it ended before its budget {budget}"
        )
        early = [commit for commit in commits[:-1] if commit.local_steps >= budget]
        self.check(not early, section, f"{where}; it committed after the budget {budget} was spent")

    @pytest.mark.parametrize("situation", TELLING, ids=str)
    def test_is_deterministic(self, section: Section, situation: Situation) -> None:
        """The same records in the same order, and the same bits, also when one instance runs again."""
        run = self.observe(section, situation).recording
        again = self.run_of(section, situation, policy=run.config.policy)
        what = first_difference(everything(run), everything(again))
        if what is not None:
            fresh = self.run_of(section, situation)
            kept = everything(run) == everything(fresh)
            why = "its instance keeps something of the run before" if kept else "it is not deterministic"
            self.check(False, section, f"{situation}: run twice, {why}: {what}")

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_modifies_no_parameters(self, section: Section, situation: Situation) -> None:
        """Every set of parameters that was ever made, by whomever, is at the end what it was."""
        modified = self.observe(section, situation).modified
        places = ", ".join(modified)
        self.check(not modified, section, f"{situation}: parameters were modified in place, those made at {places}")

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_commits_are_in_order(self, section: Section, situation: Situation) -> None:
        """Times never go back; every commit with contributions is one version more, and a merge none."""
        last: dict[str, Commit] = {}
        now = 0.0
        for commit in self.observe(section, situation).recording.commits:
            back = f"{situation}: a commit at {commit.time:.6g} s comes after one at {now:.6g} s"
            self.check(commit.time >= now, section, back)
            now = commit.time
            before = last[commit.server].version if commit.server in last else 0
            expected = before + (1 if commit.kind == "update" else 0)
            version = f"{situation}: {commit.server} goes from version {before} to {commit.version} in a {commit.kind}"
            self.check(commit.version == expected, section, version)
            last[commit.server] = commit

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_steps_add_up(self, section: Section, situation: Situation) -> None:
        """Trained = committed + dropped + in flight, no update counts twice, and none is left lying."""
        run = self.observe(section, situation).recording
        ledger, end = run.simulation.ledger, run.simulation.now
        trained = {update.id: update for update in run.updates}
        committed = [update.id for commit in run.global_commits for share in commit.shares for update in share.updates]
        twice = sorted({id for id in committed if committed.count(id) > 1})
        self.check(not twice, section, f"{situation}: updates {twice} are committed more than once")
        steps = sum(trained[id].steps for id in committed if id in trained)
        sums = (sum(update.steps for update in trained.values()), steps, steps + ledger.dropped + ledger.in_flight)
        ledgers = (ledger.trained, ledger.committed, ledger.trained)
        words = f"{situation}: trained, committed, and all of it are {sums} by its records, {ledgers} by the ledger"
        self.check(sums == ledgers, section, words)
        # What is dropped has no record, so that much may be missing.
        lying = [update for update in run.updates if update.time <= end / 2 and update.id not in set(committed)]
        forgotten = sum(update.steps for update in lying) > ledger.dropped
        message = f"{situation}: neither committed nor dropped by {end:.6g} s: {said(lying)}"
        self.check(not forgotten, section, message)

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_takes_the_same_time_without_training(self, section: Section, situation: Situation) -> None:
        """With hollow parameters the timeline is that of real training."""
        if self.looks_at_values:
            pytest.skip("looks at values")
        run = self.observe(section, situation).recording
        hollow = self.run_of(section, situation, executor={"name": "timing"})
        what = first_difference(timeline(run), timeline(hollow))
        self.check(what is None, section, f"{situation}: with and without training, the times differ: {what}")

    @pytest.mark.parametrize("situation", SHORT, ids=str)
    def test_resumes_exactly(self, section: Section, situation: Situation) -> None:
        """Cut anywhere and resumed, it is the run that was never cut."""
        sections = situation.sections(2 * self.least_steps(section), self.rounds) | {"policy": section}
        with self.about(section, f", {situation}"):
            what = problem(sections, [*self.plugins, JITTER])
        self.check(what is None, section, f"{situation}: {what}")

    @pytest.mark.parametrize("situation", [Situation(2, "slow")], ids=str)
    def test_obeys_weights_or_refuses_them(self, section: Section, situation: Situation) -> None:
        """Weights of two workers that differ make another model; where they have no part, `weighs = False` says so."""
        weights = {"name": "by_worker", "workers": [1.0, 3.0]}
        if getattr(self.build(section), "weighs", True) is False:
            sections = situation.sections(2 * self.least_steps(section), self.rounds)
            with pytest.raises(ConfigError, match=r"^weights: 'by_worker' has no part in policy "):
                record(sections | {"policy": section, "weights": weights}, [*self.plugins, JITTER])
            return
        without = self.observe(section, situation).recording.simulation.params
        weighed = self.run_of(section, situation, weights=weights).simulation.params
        message = "`weights:` make no difference; it should use update.delta, end or since, or say weighs = False"
        self.check(without.distance(weighed) > 0.0, section, f"{situation}: {message}")

    @pytest.mark.parametrize("situation", [Situation(2, "slow")], ids=str)
    def test_asks_its_merge_rules_where_workers_begin(self, section: Section, situation: Situation) -> None:
        """Each of them that it uses, by `start_of`; one that answers with a copy of its answer changes nothing."""
        policy, plain = self.build(section), self.observe(section, situation).recording
        rules, asked, stepped = [*merge_rules(policy)], set(), set()
        if not rules:
            pytest.skip("has no merge rule")
        for index, rule in enumerate(rules):
            own_start = getattr(rule, "start", None)

            def start(params: Params, state: Any, index: int = index, own: Any = own_start) -> Params:
                asked.add(index)
                begun = params if own is None else own(params, state)
                return begun.map(torch.Tensor.clone)

            def step(*given: Any, index: int = index, own: Any = rule.step, **more: Any) -> Any:
                stepped.add(index)
                return own(*given, **more)

            object.__setattr__(rule, "start", start)  # as most are frozen
            object.__setattr__(rule, "step", step)
        run = self.run_of(section, situation, policy=policy)
        fields = ", ".join(sorted(type(rules[index]).__name__ for index in stepped - asked))
        self.check(stepped <= asked, section, f"{situation}: it steps {fields}, and does not ask start_of() of it")
        what = first_difference(everything(plain), everything(run))
        self.check(what is None, section, f"{situation}: workers that begin from a copy make another run: {what}")

    @pytest.mark.parametrize("situation", LATE, ids=str)
    def test_drops_what_its_merge_rules_refuse(self, section: Section, situation: Situation) -> None:
        """Where they are told ages: rules that refuse all that is late are never stepped with it.

        What is late does not depend on numbers, so nothing is trained, but for a policy that looks at them.
        """
        policy, late = self.build(section), [0]
        executor = {} if self.looks_at_values else {"executor": {"name": "timing"}}
        rules = [*merge_rules(policy)]
        for rule in rules:

            def step(*given: Any, own: Any = rule.step, **more: Any) -> Any:
                late[0] = max(late[0], more.get("staleness", 0))
                return own(*given, **more)

            object.__setattr__(rule, "step", step)  # as most are frozen
        self.run_of(section, situation, policy=policy, **executor)
        if not late[0]:
            return  # has no merge rule, or merges nothing late, as far as it says
        for rule in rules:
            object.__setattr__(rule, "refuses", lambda staleness: staleness > 0)
        late[0] = 0
        ledger = self.run_of(section, situation, policy=policy, **executor).simulation.ledger
        message = f"{situation}: it merges what is {late[0]} versions old, and does not ask refused_by() first"
        self.check(late[0] == 0, section, message)
        counts = f"{ledger.trained} local steps trained, {ledger.committed} committed, {ledger.dropped} dropped"
        kept = ledger.dropped > 0 and ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight
        self.check(kept, section, f"{situation}: what is refused must go to sim.drop; {counts}")

    @pytest.mark.parametrize("workers", [1, 2, 8])
    def test_reaches_the_optimum(self, section: Section, workers: int) -> None:
        """On the quadratic, with identical data; a round takes a worker a fifth of the way, or less."""
        steps = self.least_steps(section)
        wanted = self.tolerance if workers < 8 else self.tolerance**0.5  # eight take their time
        problem = QuadraticProblem(lr=1.0 - 0.8 ** (1.0 / steps))
        sections = problem.sections(
            cluster={"regions": [{"workers": [1.0] * workers}]},
            network={"bandwidth_gbps": 1e-6},  # a tenth of a second for the three parameters
            data={"validation_samples": 1},
            steps={"base": steps},
            policy=section,
            budget={
                "local_steps": self.rounds_to_optimum * steps * workers,
                "target_loss": problem.loss(wanted),
                "simulated_hours": self.rounds_to_optimum * (steps + 1.0) / 3600,
            },
            evaluate={"every_local_steps": 10 * steps * workers},
        )
        run = self.record(section, sections, f", {workers} workers")
        away = problem.distance(run.simulation.params)
        trained = f"{workers} workers, {run.simulation.ledger.trained} local steps"
        hint = f"wanted {wanted:g}; with a smaller outer learning rate?"
        self.check(away <= wanted, section, f"{trained}: still {away:.3g} of the way to the optimum ({hint})")

    def test_takes_the_time_of_its_closed_form(self, section: Section, workers: int, transfer: float) -> None:
        """Six rounds of equal workers, with all-reduces of `transfer` times a round's compute time."""
        rounds, steps = 6, 2 * self.least_steps(section)
        all_reduce = transfer * steps if workers > 1 else 0.0
        expected = self.seconds(section, rounds, float(steps), all_reduce)
        assert expected is not None, "generated only for those that have one"
        ring = 2 * (workers - 1) / workers * MEGABYTE * 8  # bits
        sections = tiny(
            cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
            model={"name": "sized", "parameters": MEGABYTE // 4},
            executor={"name": "timing"},
            network={"bandwidth_gbps": ring / all_reduce / 1e9 if all_reduce else 1.0},
            steps={"base": steps},
            policy=section,
            budget={"local_steps": rounds * steps * workers},
        )
        took = self.record(section, sections, f", {workers} workers").simulation.now
        case = f"{workers} workers, {rounds} rounds of {steps} s, all-reduces of {all_reduce:g} s"
        message = f"{case}: took {took!r} s, by the closed form {expected!r} s"
        self.check(abs(took - expected) <= 1e-9 * expected, section, message)

    def observe(self, section: Section, situation: Situation) -> Observed:
        """The run that most tests look at: made once for all of them."""
        key = (type(self), json.dumps(section, sort_keys=True), situation)
        if key not in _OBSERVED:
            with watching() as witness:
                recording = self.run_of(section, situation)
                _OBSERVED[key] = Observed(recording, witness.modified())
        return _OBSERVED[key]

    def run_of(self, section: Section, situation: Situation, policy: Any = None, **changes: Any) -> Recording:
        """One more run in that situation."""
        sections = situation.sections(2 * self.least_steps(section), self.rounds) | {"policy": section} | changes
        return self.record(section, sections, f", {situation}", policy)


def said(updates: Iterable[Update]) -> str:
    """Some updates, as a message says them."""
    words = [f"update {update.id} of worker {update.worker}, there at {update.time:.6g} s" for update in updates]
    return "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")
