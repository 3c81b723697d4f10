"""Byzantine workers: who they are, what they send, and that everything else is honest."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from halos_robust_aggregation import Byzantine

from halos import Cluster, Layout, Params, Region, Simulation, Worker
from halos.testing import record, tiny
from halos.testing.resuming import problem
from halos.testing.witness import everything, first_difference, timeline

from .payloads import drawn, payloads

EIGHT = {"regions": [{"workers": [1.0] * 8}]}
NOISY = {"model": {"size": 3, "noise": 0.3}, "data": {"samples": 4096}}
HONEST = {"name": "none"}


def byzantine(**options: Any) -> Any:
    """The fault model, among eight workers, by seed 7."""
    model, workers = Byzantine(**options), tuple(Worker(id, 0, 1.0) for id in range(8))
    model.connect(Cluster((Region(0, "here", workers),), workers, 1.0, 0.0), 7)
    return model


def sent(rows: Any, number: int = 0, **options: Any) -> list[Any]:
    """What is sent of these rows, as NumPy's."""
    pairs = [(payload.sender, payload.value) for payload in payloads(rows)]
    return [value.flat.numpy() for value in byzantine(**options).sends(pairs, number)]


def test_the_named_are_bad_or_the_first_of_a_permutation() -> None:
    assert byzantine(workers=[2, 5]).bad == {2, 5}
    several = [byzantine(count=count).bad for count in range(9)]
    assert [len(bad) for bad in several] == list(range(9))
    assert all(fewer < more for fewer, more in pairwise(several))
    assert byzantine(count=3).bad == several[3]


def test_what_they_send_by_numpy() -> None:
    rows = drawn(0, 8)
    honest = np.delete(rows, [1, 4], axis=0)
    norm = np.linalg.norm(honest, axis=1).mean()
    expected = {
        "sign_flip": -10 * rows[1],
        "scaled": 10 * rows[1],
        "zero": 0 * rows[1],
        "alie": honest.mean(axis=0) - 1.5 * honest.std(axis=0),
    }
    for attack, bad in expected.items():
        found = sent(rows, attack=attack, workers=[1, 4])
        assert found[1] == pytest.approx(bad, rel=1e-12), attack
        assert all((found[worker] == rows[worker]).all() for worker in (0, 2, 3, 5, 6, 7)), attack
    first, second = sent(rows, attack="random", workers=[1, 4], sigma=2.0), sent(rows, 1, attack="random", workers=[1])
    assert np.linalg.norm(first[1]) == pytest.approx(2 * norm) == np.linalg.norm(first[4])
    directions = [each / np.linalg.norm(each) for each in (first[1], first[4], second[1])]
    assert all(abs(one @ other) < 0.9 for one, other in ((directions[0], directions[1]), directions[::2]))
    assert (first[1] == sent(rows, attack="random", workers=[1, 4], sigma=2.0)[1]).all()


def test_the_farthest_stays_just_within_the_honest_diameter() -> None:
    rows = drawn(3, 8)
    honest = rows[1:]
    bad = sent(rows, attack="min_max", workers=[0])[0]
    diameter = np.linalg.norm(honest[:, None] - honest[None], axis=2).max()
    assert np.linalg.norm(honest - bad, axis=1).max() == pytest.approx(diameter, rel=1e-9)
    mean = honest.mean(axis=0)
    assert (mean - bad) / np.linalg.norm(mean - bad) == pytest.approx(mean / np.linalg.norm(mean))


def test_a_mean_under_sign_flips_points_back() -> None:
    """Eight workers, λ = 10: (7 − 10) / 8 and (6 − 20) / 8 of what the honest ones send."""
    for count, expected in ((0, 1.0), (1, -0.375), (2, -1.75)):
        found = sent([[1.0, 2.0]] * 8, count=count)
        assert np.mean(found, axis=0).tolist() == [expected, 2 * expected]
    for count, still in ((1, 7.0), (2, 3.0)):  # it points right as long as λ < (M − f) / f
        assert np.mean(sent([[1.0]] * 8, count=count, factor=still - 0.01)) > 0.0
        assert np.mean(sent([[1.0]] * 8, count=count, factor=still + 0.01)) < 0.0


@pytest.mark.parametrize("policy", ["diloco", "async_local_sgd", "one_step_delay", "noloco_gossip"])
@pytest.mark.parametrize("options", [{}, {"count": 3, "factor": -1.0}, {"count": 3, "attack": "scaled", "factor": 1.0}])
def test_nobody_who_lies_or_a_lie_that_is_none_is_an_honest_run(policy: str, options: dict[str, Any]) -> None:
    """Identity 15, to the last bit and event."""
    if policy == "noloco_gossip":
        pytest.importorskip("noloco_gossip")
    sections = tiny(
        cluster=EIGHT, policy={"name": policy}, network={"bandwidth_gbps": 1e-6}, budget={"local_steps": 64}
    )
    sections |= NOISY | {"network": {"bandwidth_gbps": 1e-6}}
    sections["model"] = {"name": "quadratic", "optimum": 1.0, "start": 0.0, **NOISY["model"]}
    sections["data"] = {**tiny()["data"], **NOISY["data"]}
    plugins = ["noloco_gossip"] if policy == "noloco_gossip" else []
    runs = [record(sections | {"faults": each}, plugins) for each in (HONEST, {"name": "byzantine", **options})]
    assert first_difference(*map(everything, runs)) is None


def test_in_a_round_the_bad_ones_updates_are_honest_and_only_the_mean_is_not() -> None:
    """Everybody goes from 0 to .19 of 1: the mean is −.375 · −.19 the wrong way."""
    sections = tiny(cluster=EIGHT, model={"size": 1, "dtype": "float64"}, budget={"local_steps": 16})
    for count, expected in ((0, 0.19), (1, -0.375 * 0.19), (2, -1.75 * 0.19)):
        run = record(sections | {"faults": {"name": "byzantine", "count": count}})
        assert {round(float(update.params.flat[0]), 12) for update in run.updates} == {0.19}
        assert run.thetas == [pytest.approx(expected, rel=1e-12)]


def test_pushes_are_replaced_too() -> None:
    """Asynchronous, one step after the other: the bad one's arrives as −10 times what it did."""
    sections = tiny(
        policy={"name": "async_local_sgd", "outer": {"name": "sgd", "lr": 1.0}},
        model={"size": 1, "dtype": "float64"},
        budget={"local_steps": 4},
    )
    run = record(sections | {"faults": {"name": "byzantine", "workers": [1]}})
    deltas = {update.worker: float(update.delta.flat[0]) for update in run.updates[:2]}
    assert deltas == {0: pytest.approx(-0.19), 1: pytest.approx(1.9)}


def test_what_is_sent_as_a_workers_is_replaced_and_a_servers_is_not() -> None:
    found: list[float] = []

    class Sends:
        async def run(self, sim: Simulation) -> None:
            payload = sim.params.map(lambda flat: torch.ones_like(flat))
            for sender in (0, 1, "server", None):
                arrived = await sim.send(payload, 0, 0, sender=sender)
                assert arrived.flat is not None
                found.append(float(arrived.flat[0]))

    record(tiny(faults={"name": "byzantine", "workers": [1]}), policy=Sends())
    assert found == [1.0, -10.0, 1.0, 1.0]


def test_it_goes_with_other_faults() -> None:
    """Worker 7 is down in the second round of 2 s, and worker 0 lies in both: (7 − 10) / 8, then (6 − 10) / 7."""
    faults = {
        "name": "several",
        "of": [
            {"name": "byzantine", "workers": [0]},
            {"name": "crashes", "at": [{"worker": 7, "at_seconds": 3.0, "seconds": 10.0}]},
        ],
    }
    sections = tiny(cluster=EIGHT, model={"size": 1, "dtype": "float64"}, budget={"local_steps": 30}, faults=faults)
    run = record(sections)
    first = -0.375 * 0.19
    assert run.thetas[:2] == pytest.approx([first, first - 4 / 7 * 0.19 * (1 - first)], rel=1e-12)
    assert [lost.worker for lost in run.lost] == [7]


# Each attack once, and each rule that has a state once: neither knows of the other.
@pytest.mark.parametrize(
    ("attack", "aggregate"),
    [("sign_flip", "mean"), ("random", "centred_clipping"), ("min_max", "trust"), ("random", "edit")],
)
def test_cut_and_resumed_it_is_the_same_run(attack: str, aggregate: str) -> None:
    sections = tiny(
        cluster=EIGHT,
        budget={"local_steps": 64},
        aggregate={"name": aggregate},
        faults={"name": "byzantine", "count": 2, "attack": attack, "factor": 0.5},
        **NOISY,
    )
    assert problem(sections) is None


@pytest.mark.parametrize("attack", ["sign_flip", "scaled", "random", "zero", "alie", "min_max"])
def test_timed_it_has_the_same_timeline(attack: str) -> None:
    sections = tiny(
        cluster=EIGHT,
        aggregate={"name": "median"},
        network={"bandwidth_gbps": 1e-6},
        faults={"name": "byzantine", "count": 2, "attack": attack},
        **NOISY,
    )
    assert (
        first_difference(timeline(record(sections)), timeline(record(sections | {"executor": {"name": "timing"}})))
        is None
    )


def test_sharded_rules_are_warned_of_those_who_lie(caplog: pytest.LogCaptureFixture) -> None:
    words = "aggregate.sharded: faults make workers send what is not so"
    with caplog.at_level(logging.WARNING):
        record(tiny(aggregate={"name": "median", "exchange": "sharded"}))
        record(tiny(aggregate={"name": "median"}, faults={"name": "byzantine", "count": 1}))
        assert words not in caplog.text
        record(tiny(aggregate={"name": "median", "exchange": "sharded"}, faults={"name": "byzantine", "count": 1}))
        assert caplog.text.count(words) == 1


def test_a_run_in_which_nobody_can_lie_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Decoupled DiLoCo's learners are regions, and send as such."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0]}, {"workers": [1.0]}]},
        policy={"name": "decoupled_diloco", "fragments": 1},
        faults={"name": "byzantine", "count": 1},
    )
    with caplog.at_level(logging.WARNING):
        record(tiny(faults={"name": "byzantine", "count": 1}))
        assert "nobody lied" not in caplog.text
        record(sections)
        assert "faults: nobody lied in this run; its policy does not say which worker sends what" in caplog.text


def test_hollow_payloads_stay_hollow() -> None:
    layout = Layout({"vector": (3,)})
    for attack in ("sign_flip", "scaled", "random", "zero", "alie", "min_max"):
        pairs = [(worker, Params(layout, None)) for worker in range(8)]
        found = byzantine(attack=attack, count=2).sends(pairs, 0)
        assert all(each.hollow and each.size == 3 for each in found)
