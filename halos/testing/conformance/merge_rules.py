"""Conformance of merge rules: two pure functions that go downhill."""

from __future__ import annotations

from typing import Any, ClassVar, Optional

import pytest
import torch

from halos.config.yaml_text import Section
from halos.rules.merge import MergeRule, refused_by, start_of
from halos.testing.conformance.suite import Suite
from halos.testing.witness import fingerprint, watching
from halos.values.params import Fragment, Layout, Params

SIZE = 15
WHOLE: Fragment = (slice(0, SIZE),)
PART: Fragment = (slice(2, 5), slice(9, 14))


class MergeRuleConformance(Suite):
    """Steps from random parameters along random pseudo-gradients, and down a quadratic."""

    kind: ClassVar[str] = "merge rule"
    steps_to_optimum: ClassVar[int] = 2000
    rests: ClassVar[bool] = True  # whether a pseudo-gradient of zero, from a fresh state, moves nothing

    def elementwise(self, section: Section) -> bool:
        """Whether it merges every parameter by itself, so that merging a part is a part of merging the whole."""
        return False

    def tolerance(self, section: Section) -> float:
        """How near to the optimum it must end, in units of the start's distance (Adam keeps stepping by its rate)."""
        return 1e-6

    def test_modifies_nothing(self, section: Section) -> None:
        """Neither parameters nor pseudo-gradients nor states, its own from earlier steps included."""
        rule = self.rule(section)
        with watching() as witness, self.about(section):
            start = theta = numbers(0)
            state = rule.init(theta)
            states = []
            for step in range(6):
                states.append((state, fingerprint(state)))
                theta, state = rule.step(theta, numbers(step + 1), state, base=start, staleness=step)
            changed = [index for index, (each, before) in enumerate(states) if fingerprint(each) != before]
        modified = witness.modified()
        self.check(not modified, section, f"parameters were modified in place, those made at {', '.join(modified)}")
        self.check(not changed, section, f"the states before steps {changed} were modified")

    def test_is_a_function_of_its_arguments(self, section: Section) -> None:
        """Whatever was merged before, and in another instance as well: state is what is passed, and nothing else."""
        rule = self.rule(section)
        first = self.steps(section, rule, 6)
        for other, what in ((rule, "it remembers earlier steps"), (self.rule(section), "another instance differs")):
            self.check(self.steps(section, other, 6) == first, section, f"the same steps give something else: {what}")

    def test_states_are_independent(self, section: Section) -> None:
        """Two servers with a state each, taking turns, are as each of them alone."""
        rule = self.rule(section)
        alone = [self.steps(section, rule, 5, seed) for seed in (0, 100)]
        together = interleaved(rule, 5, (0, 100))
        self.check(together == alone, section, "two states of one rule are not independent of each other")

    def test_takes_hollow_parameters(self, section: Section) -> None:
        """In timing mode: what comes out is as hollow and as large as what went in."""
        rule, hollow = self.rule(section), Params(layout(), None)
        with self.about(section, ", hollow parameters"):
            theta, state = rule.step(hollow, hollow, rule.init(hollow))
            theta, _ = rule.step(theta, hollow, state, base=hollow, staleness=3)
        self.check(theta.hollow and theta.size == hollow.size, section, "hollow parameters did not stay hollow")

    def test_takes_parts(self, section: Section) -> None:
        """Fragments of the model, with a state of their own; layout, precision and size stay."""
        rule, theta = self.rule(section), numbers(0)
        with self.about(section, ", a part of the model"):
            part = theta[PART]
            moved, _ = rule.step(part, numbers(1)[PART], rule.init(part))
        fits = moved.flat is not None and moved.flat.dtype == torch.float64 and moved.size == part.size
        self.check(fits, section, f"a part of {part.size} parameters in float64 became {moved.size}, {moved.flat}")
        if self.elementwise(section):
            parts = self.steps(section, rule, 5, fragment=PART)
            of_whole = self.steps(section, rule, 5, shown=PART)
            self.check(parts == of_whole, section, "merging a part is not a part of merging the whole")

    def test_a_fresh_state_rests(self, section: Section) -> None:
        """Without a pseudo-gradient there is nothing to merge."""
        if not self.rests:
            pytest.skip("moves by itself")
        rule, theta = self.rule(section), numbers(0)
        moved, _ = rule.step(theta, theta.zeros(), rule.init(theta))
        self.check(fingerprint(moved) == fingerprint(theta), section, "a pseudo-gradient of zero moves the parameters")

    def test_its_momentum_is_that_of_the_state(self, section: Section) -> None:
        """Where it has `momentum_of`: parameters of the model's size, or None; asking changes nothing."""
        rule, theta = self.rule(section), numbers(0)
        momentum_of = getattr(rule, "momentum_of", None)
        if momentum_of is None:
            pytest.skip("has no momentum")
        _, state = rule.step(theta, numbers(1), rule.init(theta), base=theta)
        before = fingerprint(state)
        with watching() as witness, self.about(section):
            momentum = momentum_of(state)
        fits = momentum is None or (isinstance(momentum, Params) and momentum.size == theta.size)
        self.check(fits, section, f"its momentum is {momentum!r}, of {theta.size} parameters")
        untouched = fingerprint(state) == before and not witness.modified()
        self.check(untouched, section, "to ask for its momentum changes the state")

    def test_where_workers_begin_is_a_function(self, section: Section) -> None:
        """Where it has `start`: parameters of the model's size, hollow if those are, and to ask changes nothing."""
        rule, theta = self.rule(section), numbers(0)
        if getattr(rule, "start", None) is None:
            pytest.skip("workers begin at the parameters")
        theta, state = rule.step(theta, numbers(1), rule.init(theta), base=theta)
        before = fingerprint(state)
        with watching() as witness, self.about(section):
            begun, again = start_of(rule, theta, state), start_of(rule, theta, state)
            hollow = start_of(rule, theta.shell(), rule.init(theta.shell()))
        fits = begun.size == theta.size and begun.flat is not None and hollow.hollow
        self.check(
            fits, section, f"workers begin at {begun.size} of {theta.size} parameters, of hollow ones at {hollow!r}"
        )
        self.check(fingerprint(begun) == fingerprint(again), section, "asked twice, workers begin elsewhere")
        untouched = fingerprint(state) == before and not witness.modified()
        self.check(untouched, section, "to ask where workers begin changes the state")

    def test_refuses_nothing_fresh(self, section: Section) -> None:
        """Where it has `refuses`: not what has age 0, or a run would never come forward; the same whenever asked."""
        rule = self.rule(section)
        if getattr(rule, "refuses", None) is None:
            pytest.skip("refuses nothing")
        with self.about(section):
            answers = [refused_by(rule, age) for age in range(30)]
            again = [refused_by(rule, age) for age in range(30)]
        self.check(answers[0] is False, section, f"of an arrival of age 0 it says {answers[0]!r}; wanted False")
        self.check(answers == again, section, "asked twice, it refuses something else")

    def test_reaches_the_optimum(self, section: Section) -> None:
        """On quadratics where a round goes a tenth, or less, of the way."""
        rule, theta = self.rule(section), numbers(0)
        way = torch.linspace(0.05, 0.1, theta.size, dtype=torch.float64)
        goal = numbers(1)
        state, start = rule.init(theta), (theta - goal).norm()
        with self.about(section):
            for _ in range(self.steps_to_optimum):
                theta, state = rule.step(theta, (theta - goal).map(lambda flat: flat * way), state, base=theta)
        away = (theta - goal).norm() / start
        case = f"after {self.steps_to_optimum} steps it is still {away:.3g} of the way from the optimum"
        wanted = self.tolerance(section)
        self.check(away <= wanted, section, f"{case} (wanted {wanted:g})")

    def rule(self, section: Section) -> MergeRule:
        """A new rule."""
        rule: MergeRule = self.build(section)
        return rule

    def steps(
        self,
        section: Section,
        rule: MergeRule,
        count: int,
        seed: int = 0,
        fragment: Fragment = WHOLE,
        shown: Optional[Fragment] = None,
    ) -> list[Any]:
        """Take `count` steps (of a fragment); return the fingerprint of the parameters (of `shown`) after each."""
        with self.about(section):
            return interleaved(rule, count, (seed,), fragment, shown)[0]


def interleaved(
    rule: MergeRule, count: int, seeds: tuple[int, ...], fragment: Fragment = WHOLE, shown: Optional[Fragment] = None
) -> list[list[Any]]:
    """Several servers that take turns, each on its own numbers: where each of their steps led."""
    starts = [numbers(seed)[fragment] for seed in seeds]
    servers: list[tuple[Params, Any]] = [(start, rule.init(start)) for start in starts]
    found: list[list[Any]] = [[] for _ in seeds]
    for step in range(count):
        for index, (theta, state) in enumerate(servers):
            delta = numbers(seeds[index] + step + 1)[fragment]
            servers[index] = rule.step(theta, delta, state, base=starts[index], staleness=step)
            moved = servers[index][0]
            found[index].append(fingerprint(moved if shown is None else moved[shown]))
    return found


def layout() -> Layout:
    """Return a layout of two tensors, in float64."""
    return Layout({"matrix": (3, 4), "bias": (3,)}, torch.float64)


def numbers(seed: int) -> Params:
    """Random parameters, the same for the same seed."""
    return Params(layout(), torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
