"""Conformance of aggregators: functions of payloads and state, whose bytes depend on sizes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import pytest
import torch

from halos.config.yaml_text import Section
from halos.rules.aggregate import Aggregator, Exchange, Payload
from halos.sim.clock import all_of
from halos.sim.simulation import Simulation
from halos.testing.conformance.suite import JITTER, Suite
from halos.testing.recording import Recording
from halos.testing.resuming import problem
from halos.testing.situations import Situation
from halos.testing.witness import fingerprint, first_difference, timeline, watching
from halos.values.params import Fragment, Layout, Params

SIZE = 15
PART: Fragment = (slice(2, 5), slice(9, 14))
LAYOUT = Layout({"matrix": (3, 4), "bias": (3,)}, torch.float64)
PLAIN = (int, float, str, bool, type(None))


class AggregatorConformance(Suite):
    """Random payloads of `members` workers, several collectives in a row, and runs of DiLoCo with so many."""

    kind: ClassVar[str] = "aggregator"
    members: ClassVar[int] = 8  # workers; enough for it
    keeps_identical: ClassVar[bool] = True  # whether identical payloads become that payload
    homogeneous: ClassVar[bool] = True  # whether payloads that are all three times as large become three times as large

    def test_modifies_nothing(self, section: Section) -> None:
        """Neither payloads nor states, its own from earlier collectives included."""
        aggregator, state, states = self.aggregator(section), None, []
        with watching() as witness, self.about(section):
            for collective in range(4):
                states.append((state, fingerprint(state)))
                _, state = aggregator.combine(self.payloads(collective), state)
            changed = [index for index, (each, before) in enumerate(states) if fingerprint(each) != before]
        modified = witness.modified()
        self.check(not modified, section, f"payloads were modified in place, those made at {', '.join(modified)}")
        self.check(not changed, section, f"the states before collectives {changed} were modified")

    def test_is_a_function_of_payloads_and_state(self, section: Section) -> None:
        """Whatever was aggregated before, in another instance as well; two states that take turns are independent."""
        aggregator = self.aggregator(section)
        first = self.collectives(section, aggregator, (0,))[0]
        again = self.collectives(section, aggregator, (0,))[0]
        self.check(again == first, section, "the same collectives give something else: it remembers earlier ones")
        other = self.collectives(section, self.aggregator(section), (0,))[0]
        self.check(other == first, section, "the same collectives give something else in another instance")
        alone = [self.collectives(section, aggregator, (seed,))[0] for seed in (0, 100)]
        together = self.collectives(section, aggregator, (0, 100))
        self.check(together == alone, section, "two states are not independent of each other")

    def test_its_state_is_of_parameters_and_plain_values(self, section: Section) -> None:
        """What else there is, a resumed run would not have."""
        _, state = self.aggregator(section).combine(self.payloads(0), None)
        strange = [type(each).__name__ for each in leaves(state) if not isinstance(each, (Params, *PLAIN))]
        self.check(not strange, section, f"its state holds {', '.join(strange)}; only Params and plain values are kept")

    def test_takes_hollow_payloads_and_parts(self, section: Section) -> None:
        """In timing mode, and of fragments: what comes out is as hollow and as large as what went in."""
        aggregator, state = self.aggregator(section), None
        for _ in range(3):
            with self.about(section, ", hollow payloads"):
                hollow = [Payload(sender, Params(LAYOUT, None)) for sender in range(self.members)]
                aggregate, state = aggregator.combine(iter(hollow), state)
            self.check(aggregate.hollow and aggregate.size == SIZE, section, "hollow payloads did not stay hollow")
        with self.about(section, ", a part of the model"):
            parts = [each._replace(value=each.value[PART]) for each in self.payloads(0)]
            aggregate, _ = aggregator.combine(iter(parts), None)
        kept = aggregate.flat is not None and aggregate.flat.dtype == torch.float64
        words = f"payloads of {parts[0].value.size} numbers in float64 became {aggregate.size}, {aggregate.flat}"
        self.check(kept and aggregate.layout is parts[0].value.layout, section, words)

    def test_takes_payloads_of_whoever_is_heard(self, section: Section) -> None:
        """From all to one: faults may take the others'."""
        aggregator, state = self.aggregator(section), None
        for members in range(self.members, 0, -1):
            with self.about(section, f", {members} of {self.members} members"):
                aggregate, state = aggregator.combine(self.payloads(members)[:members], state)
            finite = aggregate.flat is not None and bool(aggregate.flat.isfinite().all())
            self.check(finite, section, f"{members} of {self.members} payloads became {aggregate.flat}")

    def test_the_order_of_the_members_does_not_matter(self, section: Section) -> None:
        """To rounding, in three collectives of a row."""
        pairs = []
        for turned in (0, 3):
            aggregator, state, found = self.aggregator(section), None, []
            for collective in range(3):
                payloads = self.payloads(collective)
                with self.about(section):
                    aggregate, state = aggregator.combine(payloads[turned:] + payloads[:turned], state)
                found.append(aggregate)
            pairs.append(found)
        for collective, (one, other) in enumerate(zip(*pairs)):
            words = f"members in another order change collective {collective} by {one.distance(other):.3g}"
            self.check(one.distance(other) <= 1e-9 * max(1.0, one.norm()), section, words)

    def test_identical_payloads_become_that_payload(self, section: Section) -> None:
        if not self.keeps_identical:
            pytest.skip("makes something else of them")
        aggregator, state = self.aggregator(section), None
        for collective in range(3):
            value = numbers(collective)
            with self.about(section):
                payloads = [Payload(sender, value) for sender in range(self.members)]
                aggregate, state = aggregator.combine(payloads, state)
            away = aggregate.distance(value) / value.norm()
            self.check(away <= 1e-12, section, f"identical payloads became another, {away:.3g} of it away")

    def test_larger_payloads_become_larger_alike(self, section: Section) -> None:
        if not self.homogeneous:
            pytest.skip("has a scale of its own")
        results = []
        for scale in (1.0, 3.0):
            aggregator, state = self.aggregator(section), None
            for collective in range(3):
                payloads = [each._replace(value=scale * each.value) for each in self.payloads(collective)]
                aggregate, state = aggregator.combine(payloads, state)
            results.append(aggregate)
        away = (3.0 * results[0]).distance(results[1]) / results[1].norm()
        self.check(away <= 1e-9, section, f"payloads three times as large became that but for {away:.3g} of it")

    def test_what_travels_is_whole_bytes_and_the_same_each_time(self, section: Section) -> None:
        """Asked before and after a collective."""
        aggregator = self.aggregator(section)
        before = self.exchanges(section, aggregator)
        whole = all(type(each.nbytes) is int and each.nbytes >= 0 and type(each.gathered) is bool for each in before)
        self.check(whole, section, f"it exchanges {before}, which are no bytes")
        aggregator.combine(self.payloads(0), None)
        self.check(self.exchanges(section, aggregator) == before, section, "what travels depends on what travelled")

    def test_a_timed_run_has_the_timeline_of_the_trained_one(self, section: Section) -> None:
        trained, timed = (self.run(section, executor) for executor in ("inline", "timing"))
        what = first_difference(timeline(trained), timeline(timed))
        self.check(what is None, section, f"trained and timed, {what}")

    @pytest.mark.parametrize("parts", [1, 2])
    def test_resumed_anywhere_a_run_is_the_one_that_was_never_cut(self, section: Section, parts: int) -> None:
        """The whole model's payloads, and those of either half."""
        sections, plugins = self.sections_of(section, "inline"), [*self.plugins, JITTER]
        what = problem(sections, plugins, policy=lambda: InParts(parts))
        self.check(what is None, section, f"in {parts} part(s): {what}")

    def aggregator(self, section: Section) -> Aggregator:
        """A new aggregator."""
        aggregator: Aggregator = self.build(section)
        return aggregator

    def payloads(self, seed: int) -> list[Payload]:
        """One of every member."""
        return [Payload(sender, numbers(1000 * seed + sender + 1)) for sender in range(self.members)]

    def collectives(self, section: Section, aggregator: Aggregator, seeds: Sequence[int]) -> list[list[Any]]:
        """Four collectives of each of several streams, in turns: what came out."""
        states: list[Any] = [None] * len(seeds)
        found: list[list[Any]] = [[] for _ in seeds]
        for collective in range(4):
            for stream, seed in enumerate(seeds):
                with self.about(section):
                    payloads = iter(self.payloads(seed + collective))
                    aggregate, states[stream] = aggregator.combine(payloads, states[stream])
                found[stream].append(fingerprint(aggregate))
        return found

    def exchanges(self, section: Section, aggregator: Aggregator) -> list[Exchange]:
        """What travels of payloads of some sizes among some members."""
        wanted = getattr(aggregator, "exchanges", lambda nbytes, layout, members: [Exchange(nbytes)])
        with self.about(section):
            return [
                each
                for part in (LAYOUT, LAYOUT.part(PART))
                for members in range(1, self.members + 1)
                for each in wanted(4 * part.size, part, members)
            ]

    def run(self, section: Section, executor: str) -> Recording:
        """A run of DiLoCo."""
        return self.record(section, self.sections_of(section, executor))

    def sections_of(self, section: Section, executor: str) -> Section:
        """A run of three rounds, of noisy gradients, over slow links."""
        situation = Situation(self.members, "jitter").sections(2, 3)
        return situation | {"aggregate": section, "executor": {"name": executor}}


@dataclass
class InParts:
    """Rounds that aggregate one part of the model after the other."""

    parts: int

    async def run(self, sim: Simulation) -> None:
        size = sim.params.size
        cuts = [size * part // self.parts for part in range(self.parts + 1)]
        for r in sim.rounds():
            theta = sim.params
            updates = await all_of([sim.train(worker, theta, round=r) for worker in sim.workers])
            for first, last in pairwise(cuts):
                part = (slice(first, last),)
                delta = await sim.all_reduce(update.delta[part] for update in updates)
                theta = theta.replace(part, theta[part] - delta)
            sim.commit(theta, updates)


def leaves(value: Any) -> Iterator[Any]:
    """What a state is made of in the end, in lists, tuples, dictionaries, dataclasses and structs."""
    if isinstance(value, Mapping):
        inside = [*value, *value.values()]
    elif isinstance(value, (list, tuple)):
        inside = [*value]
    elif isinstance(value, msgspec.Struct):
        inside = [*msgspec.structs.asdict(value).values()]
    elif is_dataclass(value):
        inside = [getattr(value, field.name) for field in fields(value)]
    else:
        yield value
        return
    for each in inside:
        yield from leaves(each)


def numbers(seed: int) -> Params:
    """Random numbers, the same for the same seed."""
    return Params(LAYOUT, torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
