"""Aggregators: the mean by hand, and what another aggregator makes travel, of every policy that averages."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from halos import ConfigError, Exchange, Layout, Mean, Params, Payload, Register, all_of, hookimpl
from halos.config.config import resolved
from halos.run.assembly import assemble
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.small_runs import FOUR_MB, MB_PER_S, Policy

THREE = {"regions": [{"workers": [1, 1, 1]}]}
LAYOUT = Layout({"vector": (2,)}, torch.float64)


@dataclass
class Middle:
    """The middle one of each coordinate, of all payloads, which must be gathered; it counts its collectives."""

    weighs = False
    sharded: bool = False

    def combine(self, payloads: Iterable[Payload], state: Any) -> tuple[Params, Any]:
        several = [each.value for each in payloads]
        return Params.combine(lambda *flats: torch.stack(flats).median(0).values, *several), (state or 0) + 1

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        return [Exchange(nbytes, gathered=not self.sharded)]


@dataclass(frozen=True)
class Norms(Mean):
    """The mean, for which norms (a number of 4 bytes for each tensor) are gathered first."""

    def exchanges(self, nbytes: int, layout: Layout, members: int) -> Sequence[Exchange]:
        return [Exchange(4 * len(layout.shapes), gathered=True), Exchange(nbytes)]


@dataclass
class First:
    """The first payload, and never a look at the others."""

    def combine(self, payloads: Iterable[Payload], state: Any) -> tuple[Params, Any]:
        return next(iter(payloads)).value, None


@dataclass
class Gathered:
    """Half of the bytes, which nobody can sum under way."""

    gathered: bool = True

    def roundtrip(self, payload: Params) -> Params:
        return payload

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


@hookimpl
def register_codecs(register: Register) -> None:
    register("gathered", Gathered)


@hookimpl
def register_aggregators(register: Register) -> None:
    register("middle", Middle)
    register("norms", Norms)
    register("first", First)


def of(*numbers: float) -> Params:
    return Params(LAYOUT, torch.tensor(numbers, dtype=torch.float64))


def values(params: Params) -> list[float]:
    assert params.flat is not None
    found: list[float] = params.flat.tolist()
    return found


def test_the_mean_by_hand() -> None:
    payloads = [Payload(0, of(1.0, 2.0)), Payload(1, of(3.0, -2.0))]
    assert values(Mean().combine(payloads, None)[0]) == [2.0, 0.0]
    weighed = [payloads[0]._replace(weight=3.0), payloads[1]]
    assert values(Mean().combine(weighed, None)[0]) == [1.5, 1.0]  # (3 · 1 + 3) / 4, (3 · 2 − 2) / 4
    twice = [each._replace(weight=2.0) for each in payloads]
    assert values(Mean().combine(twice, None)[0]) == [2.0, 0.0]


def test_the_mean_holds_one_payload_at_a_time() -> None:
    alive: list[int] = []
    seen: list[weakref.ref[Params]] = []

    def payloads() -> Iterable[Payload]:
        for index in range(4):
            alive.append(sum(each() is not None for each in seen))
            value = of(float(index), 0.0)
            seen.append(weakref.ref(value))
            yield Payload(index, value)
            del value

    assert values(Mean().combine(payloads(), None)[0]) == [1.5, 0.0]
    assert max(alive) <= 1


def test_a_policy_gets_what_the_aggregator_makes_of_it_and_a_gather_takes_as_long() -> None:
    found = []

    async def body(sim: Simulation) -> None:
        payloads = [sim.params.map(lambda flat, by=by: torch.full_like(flat, by)) for by in (1.0, 2.0, 30.0)]
        found.append(values(await sim.all_reduce(payloads)))
        joined = [sim.collective(0).join(worker, payload) for worker, payload in zip(sim.workers, payloads)]
        found.append(values(await joined[0]))

    run = record(
        tiny(cluster=THREE, aggregate={"name": "middle"}, model={"wire_bytes": 1_000_000}, network=MB_PER_S),
        plugins=[__file__],
        policy=Policy(body),
    )
    assert found == [[2.0, 2.0]] * 2
    # Everybody passes two payloads of 1 MB on, at 1 MB/s; three workers, so 6 MB in all.
    assert [(each.time, each.bytes) for each in run.transfers] == [(2.0, 6_000_000), (4.0, 6_000_000)]


@pytest.mark.parametrize(
    ("aggregate", "network", "seconds", "crossing"),
    [
        ({"name": "mean"}, {}, 16 / 3, 16_000_000),  # 2 · 2/3 · 4 MB, by three
        ({"name": "middle"}, {}, 8.0, 24_000_000),
        ({"name": "middle", "sharded": True}, {}, 16 / 3, 16_000_000),
        # A tensor: 4 bytes to two others each, then the sum.
        ({"name": "norms"}, {}, 8e-6 + 16 / 3, 24 + 16_000_000),
        ({"name": "norms"}, {"latency_ms": 1.0}, 2e-3 + 4e-3 + 8e-6 + 16 / 3, 24 + 16_000_000),
    ],
)
def test_seconds_and_bytes_follow_what_it_needs(
    aggregate: dict[str, Any], network: dict[str, Any], seconds: float, crossing: int
) -> None:
    sections = tiny(
        cluster=THREE,
        aggregate=aggregate,
        executor={"name": "timing"},
        model=FOUR_MB,
        network=MB_PER_S | network,
        budget={"local_steps": 6},
    )
    run = record(sections, plugins=[__file__])
    assert run.commits[0].time == pytest.approx(2.0 + seconds, rel=1e-12)  # two steps of a second
    assert [each.bytes for each in run.transfers] == [crossing]
    assert run.simulation.exchange_seconds(run.simulation.workers[0]) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(("aggregate", "each"), [("mean", 16e6 / 3), ("middle", 8e6), ("norms", 8 + 16e6 / 3)])
def test_links_that_are_shared_carry_as_much(aggregate: str, each: float) -> None:
    """Each worker sends AR(x) = 2 · 2/3 · x and AG(x) = 2 x, of 4 MB and of 4 bytes."""
    run = record(
        tiny(
            cluster=THREE,
            aggregate={"name": aggregate},
            executor={"name": "timing"},
            model=FOUR_MB,
            network={"name": "shared_links", "inside_gbps": 1.0, "worker_up_gbps": 0.008},
            budget={"local_steps": 6},
        ),
        plugins=[__file__],
    )
    links = run.simulation.links()
    assert links is not None
    assert links["worker-1.up"]["bytes"] == pytest.approx(each, rel=1e-9)
    assert run.commits[0].time == pytest.approx(2.0 + each / 1e6, rel=1e-9)


def test_payloads_that_are_gathered_anyway_travel_once() -> None:
    sections = tiny(
        cluster=THREE,
        executor={"name": "timing"},
        model=FOUR_MB,
        network=MB_PER_S,
        budget={"local_steps": 6},
        codec={"name": "gathered"},
    )
    for name in ("mean", "middle", "norms"):
        (transfer,) = record(sections | {"aggregate": {"name": name}}, plugins=[__file__]).transfers
        assert (transfer.time, transfer.bytes) == (2.0 + 2 * 2.0, 3 * 2 * 2_000_000), name


def test_there_is_a_state_for_each_part_of_the_model() -> None:
    async def body(sim: Simulation) -> None:
        half = (slice(0, 1),)
        for _ in range(3):
            await sim.all_reduce([sim.params, sim.params])
        await sim.all_reduce([sim.params[half], sim.params[half]])

    run = record(tiny(aggregate={"name": "middle"}), plugins=[__file__], policy=Policy(body))
    assert list(run.simulation._wire._states.values()) == [3, 1]


def test_what_an_aggregator_does_not_look_at_travels_as_well() -> None:
    run = record(tiny(cluster=THREE, aggregate={"name": "first"}, budget={"local_steps": 6}), plugins=[__file__])
    assert [each.bytes for each in run.transfers] == [2 * 2 * 8]  # 2 (M − 1) payloads of two numbers


def test_relative_weights_are_the_policys_to_say() -> None:
    found = []

    async def body(sim: Simulation) -> None:
        payloads = [sim.params.map(lambda flat, by=by: torch.full_like(flat, by)) for by in (1.0, 5.0)]
        found.append(values(await sim.all_reduce(payloads, weights=[3.0, 1.0])))
        joined = [
            sim.collective(0).join(worker, payload, weight=weight)
            for worker, payload, weight in zip(sim.workers, payloads, (1.0, 3.0))
        ]
        found.append(values((await all_of(joined))[0]))
        for weights in ([1.0], [1.0, 0.0], [1.0, math.inf]):
            with pytest.raises(ValueError, match=r"relative weight|shorter than"):
                await sim.all_reduce(payloads, weights=weights)
        with pytest.raises(ValueError, match="a relative weight of 0"):
            sim.collective(1).join(sim.workers[0], payloads[0], weight=0)

    record(tiny(), policy=Policy(body))
    assert found == [[2.0, 2.0], [4.0, 4.0]]


def test_weights_that_it_would_ignore_are_refused() -> None:
    config, plugins = resolved(
        tiny(aggregate={"name": "middle"}, weights={"name": "by_worker", "workers": [1, 2]}), [__file__]
    )
    with pytest.raises(ConfigError, match="weights: 'by_worker' has no part in aggregator middle; leave it at uniform"):
        assemble(config, plugins)


def test_a_policy_that_never_aggregates_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    words = "aggregate: nothing was aggregated in this run"
    with caplog.at_level(logging.WARNING):
        record(tiny(aggregate={"name": "middle"}), plugins=[__file__])
        record(tiny(policy={"name": "async_local_sgd"}))
        assert words not in caplog.text
        record(tiny(policy={"name": "async_local_sgd"}, aggregate={"name": "middle"}), plugins=[__file__])
        assert words in caplog.text
