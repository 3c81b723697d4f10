"""Conformance of network models: times that are functions of their arguments, and longer for more bytes; flows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest

from halos.config.yaml_text import Section
from halos.plugins.optional import call, has
from halos.testing.conformance.suite import Suite
from halos.testing.recording import tiny
from halos.testing.witness import first_difference, timeline
from halos.world import cluster as clusters
from halos.world.cluster import Cluster, ClusterOptions, RegionOptions
from halos.world.network import NetworkModel
from halos.world.phases import Phase

BYTES = (0, 1, 1_000, 1_000_000, 1_000_000_000)
TIMES = (0.0, 3.5, 86_400.0)  # of the run, seconds


class NetworkConformance(Suite):
    """Asked for transfers, round trips and all-reduces between all regions, and used in runs."""

    kind: ClassVar[str] = "network model"
    regions: ClassVar[int] = 3  # of the cluster it is connected to: what the sections must fit

    def test_times_are_seconds(self, section: Section) -> None:
        """Not negative, not NaN, not infinite."""
        for case, seconds in self.answers(section, self.connected(section)).items():
            good = isinstance(seconds, (int, float)) and seconds >= 0.0 and math.isfinite(seconds)
            self.check(good, section, f"{case} is {seconds!r}, not a time in seconds")

    def test_more_bytes_take_no_less_time(self, section: Section) -> None:
        network = self.connected(section)
        for way, question in self.questions(network).items():
            for time in TIMES:
                several = [question(nbytes, time) for nbytes in BYTES]
                case = f"{way} of {BYTES} bytes at {time:g} s takes {several}"
                self.check(several == sorted(several), section, f"{case}: less for more")

    def test_one_worker_has_nobody_to_reduce_with(self, section: Section) -> None:
        seconds = self.connected(section).all_reduce(1_000_000, 1, 0.0)
        self.check(seconds == 0.0, section, f"an all-reduce among one worker takes {seconds!r} s")

    def test_is_a_function_of_its_arguments(self, section: Section) -> None:
        """Whatever was asked before, in whatever order, and in another instance as well."""
        network = self.connected(section)
        first = self.answers(section, network)
        backwards = self.answers(section, network, reverse=True)
        for other, what in (
            (backwards, "asked again"),
            (self.answers(section, self.connected(section)), "another instance"),
        ):
            wrong = next((case for case in first if first[case] != other[case]), None)
            said = "" if wrong is None else f"{wrong} is {first[wrong]!r} and then, {what}, {other[wrong]!r}"
            self.check(wrong is None, section, said)

    def test_flows_are_bytes_and_latencies(self, section: Section) -> None:
        """Of a model that answers in flows: none is negative, NaN or infinite."""
        for case, phases in self.flows(self.with_flows(section)).items():
            numbers = [number for phase in phases for number in (*phase.loads.values(), phase.latency)]
            good = all(isinstance(each, (int, float)) and 0.0 <= each < math.inf for each in numbers)
            self.check(good, section, f"{case} has bytes and latencies of {numbers}")

    def test_links_carry_as_much_as_they_say_for_as_long_as_they_say(self, section: Section) -> None:
        network = self.with_flows(section)
        links = {link for phases in self.flows(network).values() for phase in phases for link in phase.loads}
        for link, time in itertools.product(sorted(links, key=str), TIMES):
            bits, until = network.capacity(link, time)
            said = f"link {link!r} has {bits!r} bit/s at {time:g} s, until {until!r}"
            self.check(bits >= 0.0, section, said)
            self.check(until > time, section, f"{said}, which is not later")
            if until < math.inf:
                then, _ = network.capacity(link, time + 0.5 * (until - time))
                self.check(then == bits, section, f"{said}, but {then!r} half-way")

    def test_flows_are_a_function_of_their_arguments(self, section: Section) -> None:
        """Jitter included: of the seed, and of the number of the message."""
        one, other = (self.flows(self.with_flows(section), reverse=reverse) for reverse in (False, True))
        wrong = next((case for case in one if one[case] != other[case]), None)
        said = "" if wrong is None else f"{wrong} is {one[wrong]!r} and then, asked in another order, {other[wrong]!r}"
        self.check(wrong is None, section, said)

    def test_one_worker_is_a_collective_without_bytes(self, section: Section) -> None:
        network = self.with_flows(section)
        alone = small_cluster(self.regions).workers[:1]
        with self.about(section):
            sizes = [phase.size for phase in network.collective_phases(1_000_000, alone, False, 0)]
        self.check(not any(sizes), section, f"a collective of one worker has bytes on links, {sizes}")

    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    @pytest.mark.parametrize("workers", [1, 2, 16])
    def test_runs_twice_alike(self, section: Section, policy: str, workers: int) -> None:
        spread = [[1.0] * (workers // self.regions + (index < workers % self.regions)) for index in range(self.regions)]
        sections = tiny(
            cluster={"regions": [{"workers": speeds} for speeds in spread]},
            executor={"name": "timing"},
            policy={"name": policy},
            budget={"local_steps": 8 * workers},
        )
        one, other = (timeline(self.record(section, sections | {"network": section})) for _ in range(2))
        what = first_difference(one, other)
        self.check(what is None, section, f"{workers} workers, {policy}: run twice, {what}")

    def connected(self, section: Section) -> NetworkModel:
        """A new model, joining regions of two workers each."""
        network: NetworkModel = self.build(section)
        with self.about(section, f", {self.regions} regions"):
            call(network, "seeded", 0)
            network.connect(small_cluster(self.regions))
        return network

    def with_flows(self, section: Section) -> Any:
        """The same, if it answers in flows; otherwise the test is skipped."""
        network = self.connected(section)
        if not has(network, "capacity"):
            pytest.skip("does not answer in flows")
        return network

    def flows(self, network: Any, reverse: bool = False) -> dict[str, list[Phase]]:
        """The phases of messages and collectives, by what was asked."""
        workers = small_cluster(self.regions).workers
        found: dict[str, Callable[[], Any]] = {}
        for number, (i, j, n) in enumerate(itertools.product(range(self.regions), range(self.regions), BYTES)):
            found[f"message {number}, {n} bytes {i}->{j}"] = partial(
                network.message_phases, n, i, j, number, None, None
            )
        for number, (count, n, gathered) in enumerate(itertools.product((1, 2, len(workers)), BYTES, (False, True))):
            case = f"collective {number}, {n} bytes among {count}{', gathered' * gathered}"
            found[case] = partial(network.collective_phases, n, workers[:count], gathered, number)
        return {case: list(ask()) for case, ask in list(found.items())[:: -1 if reverse else 1]}

    def questions(self, network: NetworkModel) -> dict[str, Callable[[int, float], Any]]:
        """All that can be asked about so many bytes at some time."""
        found: dict[str, Callable[[int, float], Any]] = {}
        for i, j in itertools.product(range(self.regions), repeat=2):
            found[f"transfer {i}->{j}"] = lambda n, t, i=i, j=j: network.transfer(n, i, j, t)  # type: ignore[misc]
            for leg, name in enumerate(("pull", "push")):
                found[f"{name} {i}, {j}"] = lambda n, t, i=i, j=j, leg=leg: network.round_trip(n, n, i, j, t)[leg]  # type: ignore[misc]
        for workers in (1, 2, 6, 1000):
            found[f"all-reduce among {workers}"] = lambda n, t, w=workers: network.all_reduce(n, w, t)  # type: ignore[misc]
        return found

    def answers(self, section: Section, network: NetworkModel, reverse: bool = False) -> dict[str, Any]:
        """Every question's answer, by what was asked."""
        cases = list(itertools.product(self.questions(network).items(), BYTES, TIMES))
        with self.about(section):
            return {
                f"{way} of {nbytes} bytes at {time:g} s": question(nbytes, time)
                for (way, question), nbytes, time in cases[:: -1 if reverse else 1]
            }


def small_cluster(regions: int) -> Cluster:
    """So many regions of two workers each, one half as fast as the other; steps of a second."""
    return clusters.build(ClusterOptions(regions=[RegionOptions("", [1.0, 0.5])] * regions, step_time_ms=1000.0))
