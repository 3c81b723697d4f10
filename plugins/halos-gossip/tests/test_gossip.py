"""Gossip: rounds by hand, plain formulas, identities, who waits for whom and how long, bytes, faults."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from halos_gossip import edges

from halos import ConfigError
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_gossip"]
CURVED = {"name": "quadratic", "size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]}
LINEAR = {"name": "quadratic", "size": 1, "curvature": 1e-9, "optimum": 1e9, "dtype": "float64"}
Edges = list[tuple[int, int]]


def run(rounds: int, *speeds: float, base: int = 4, **changes: Any) -> Recording:
    """Workers of `base` local steps a round at speed 1, each in a region of its own, on a quadratic with optimum 1."""
    sections = tiny(
        model={"dtype": "float64", "size": 1},
        cluster={"regions": [{"workers": [speed]} for speed in speeds], "step_time_ms": 1000.0},
        steps={"name": "by_speed", "base": base},
        data={"shards": "iid"},
        policy={"name": "gossip"},
        budget={"local_steps": rounds * sum(round(base * speed) for speed in speeds)},
    )
    return record(sections | changes, PLUGIN)


def models(recording: Recording) -> list[Any]:
    return [commit.params.flat.numpy() for commit in recording.global_commits]  # type: ignore[union-attr]


def close(ours: Recording, theirs: Recording, tolerance: float = 1e-12) -> None:
    assert len(ours.global_commits) == len(theirs.global_commits) > 1
    np.testing.assert_allclose(models(ours), models(theirs), rtol=0, atol=tolerance)


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = (
        {"name": "gossip", "rule": "gasloc", "graph": "ring", "momentum": 0.3, "lr": 0.5},
        {"name": "gossip", "rule": "gasloc", "graph": "two_pairs", "momentum": 0.0},
    )


# NoLoCo


def test_three_rounds_of_three_workers_in_full() -> None:
    """Steps 2, 1, 1: Δ is .19, .1, .1 of the way to 1. lr and pull .7, β .5; who meets whom: {0,2}, {0,1}, {0,2}."""
    recording = run(3, 1.0, 0.5, 0.5, base=2, policy={"name": "gossip", "seed": 0})
    met = {index: list(edges("pairs", 0, index, 3)) for index in range(3)}
    assert met == {0: [(2, 0)], 1: [(1, 0)], 2: [(2, 0)]}
    # 1: mean Δ of 0 and 2 −.145, m = .7 · .145; 1 is alone, m = .07.
    phi = [0.1015, 0.07, 0.1015]
    # 2: Δ = −.19 · .8985 = −.170715, −.093, −.08985. 0 and 1: −lr mean Δ = .7 · .1318575, their mean .08575:
    # m_0 = .05075 + .09230025 − .7 · .01575, m_1 = .035 + .09230025 + .011025, m_2 = .05075 + .062895.
    second = [0.1015 + 0.13202525, 0.07 + 0.13832525, 0.1015 + 0.113645]
    # 3: Δ = −.1456302025, −.079167475, −.0784855. 0 and 2: .7 · .11205785125, their mean .224335125, .009190125 off:
    # m_0 = .066012625 + .078440495875 − .0064330875, m_2 = .0568225 + .078440495875 + .0064330875,
    # m_1 = .069162625 + .0554172325.
    third = [0.23352525 + 0.138020033375, 0.20832525 + 0.1245798575, 0.215145 + 0.141696083375]
    expected = [sum(phi) / 3, sum(second) / 3, sum(third) / 3]
    assert recording.thetas == pytest.approx(expected, abs=1e-14)
    # Where workers began a round is in the records: round 2 from φ of round 1, round 3 from that of round 2.
    starts = {worker: [float(u.start.flat[0]) for u in recording.updates if u.worker == worker] for worker in range(3)}  # type: ignore[index]
    for worker in range(3):
        assert starts[worker] == pytest.approx([0.0, phi[worker], second[worker]], abs=1e-14)
    center = sum(third) / 3
    squares = sum((each - center) ** 2 for each in third) / 3
    assert recording.config.policy.report() == {  # type: ignore[attr-defined]
        "letters": 6,
        "consensus": pytest.approx(squares, rel=1e-9),
        "mean_distance": pytest.approx(sum(abs(each - center) for each in third) / 3, rel=1e-9),
    }


def deltas(recording: Recording, workers: int) -> list[Any]:
    """By round, the workers' Δ as the run had them, [workers, parameters]."""
    by_worker: list[list[Any]] = [[] for _ in range(workers)]
    for update in recording.updates:
        by_worker[update.worker].append(update.delta.flat.numpy())  # type: ignore[union-attr]
    return [np.stack(each) for each in zip(*by_worker, strict=True)]


def heavy_ball(means: list[Any], lr: float, beta: float) -> list[Any]:
    theta, momentum, found = np.zeros_like(means[0]), np.zeros_like(means[0]), []
    for delta in means:
        momentum = beta * momentum + delta
        theta = theta - lr * momentum
        found.append(theta)
    return found


@pytest.mark.parametrize("pull", [None, 0.0, 0.3])
@pytest.mark.parametrize("workers", [2, 5, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mean_follows_heavy_ball_on_the_mean_difference_whoever_meets_whom(
    seed: int, workers: int, pull: float | None
) -> None:
    policy = {"name": "gossip", "lr": 0.6, "momentum": 0.4, "pull": pull, "seed": seed}
    recording = run(8, *[1.0, 0.5, 0.25, 0.75, 1.0, 0.5][:workers], policy=policy, model=CURVED)
    expected = heavy_ball([each.mean(0) for each in deltas(recording, workers)], 0.6, 0.4)
    np.testing.assert_allclose(models(recording), expected, rtol=0, atol=1e-12)


def test_one_group_of_all_is_diloco_with_heavy_ball() -> None:
    """No rule has heavy ball alone: it is in the formulas here, and without momentum in DiLoCo's SGD."""
    speeds = (1.0, 0.5, 0.75)
    policy = {"name": "gossip", "graph": "complete", "lr": 0.6, "momentum": 0.0}
    diloco = {"name": "diloco", "outer": {"name": "sgd", "lr": 0.6}}
    close(run(6, *speeds, policy=policy, model=CURVED), run(6, *speeds, policy=diloco, model=CURVED))
    recording = run(6, *speeds, policy=policy | {"momentum": 0.5}, model=CURVED)
    assert recording.config.policy.report()["consensus"] == pytest.approx(0.0, abs=1e-25)  # type: ignore[attr-defined]
    theta, momentum = np.zeros(3), np.zeros(3)
    for each, after in zip(deltas(recording, 3), models(recording), strict=True):
        momentum = 0.5 * momentum - 0.6 * each.mean(0)
        theta = theta + momentum
        np.testing.assert_allclose(after, theta, rtol=0, atol=1e-12)


def test_on_a_linear_loss_the_mean_is_the_same_whoever_meets_whom() -> None:
    runs = [run(6, 1.0, 0.5, 0.75, policy={"name": "gossip", "seed": seed}, model=LINEAR) for seed in (0, 1)]
    assert [list(edges("pairs", seed, 0, 3)) for seed in (0, 1)] == [[(2, 0)], [(0, 1)]]
    assert runs[0].thetas == pytest.approx(runs[1].thetas, rel=1e-8) and runs[0].thetas[-1] > 1.0


def test_twenty_rounds_equal_the_equations_written_out() -> None:
    speeds, beta, lr, pull = (1.0, 0.5, 0.25, 0.75, 1.0), 0.5, 0.6, 0.8
    policy = {"name": "gossip", "lr": lr, "momentum": beta, "pull": pull, "seed": 3}
    phi, m, expected = np.zeros(5), np.zeros(5), []
    for index in range(20):
        delta = np.array([(1 - 0.9 ** round(4 * speed)) * (x - 1) for speed, x in zip(speeds, phi)])
        groups = [{one, other} for one, other in edges("pairs", 3, index, 5)]
        groups += [{id} for id in range(5) if not any(id in group for group in groups)]
        after = phi.copy()
        for group in map(list, groups):
            for i in group:
                m[i] = beta * m[i] - lr * delta[group].mean() + pull * (phi[group].mean() - phi[i])
                after[i] = phi[i] + m[i]
        phi = after
        expected.append(phi.mean())
    assert run(20, *speeds, policy=policy).thetas == pytest.approx(expected, abs=1e-12)


# GASLoC

GASLOC = {"name": "gossip", "rule": "gasloc"}


@pytest.mark.parametrize(("graph", "workers"), [("pairs", 3), ("two_pairs", 5), ("ring", 5), ("complete", 4)])
def test_the_mean_is_nesterov_on_the_mean_difference_over_any_graph(graph: str, workers: int) -> None:
    speeds = (1.0, 0.5, 0.75, 0.25, 1.0)[:workers]
    recording = run(8, *speeds, policy=GASLOC | {"graph": graph, "lr": 0.6, "momentum": 0.4}, model=CURVED)
    theta, velocity = np.zeros(3), np.zeros(3)
    for each, after in zip(deltas(recording, workers), models(recording), strict=True):
        delta = each.mean(0)
        velocity = 0.4 * velocity + delta
        theta = theta - 0.6 * (delta + 0.4 * velocity)
        np.testing.assert_allclose(after, theta, rtol=0, atol=1e-12)


def test_a_complete_graph_that_mixes_at_once_is_diloco_with_sgd() -> None:
    speeds = (1.0, 0.5, 0.75)
    policy = GASLOC | {"graph": "complete", "lr": 0.6, "momentum": 0.0}
    diloco = {"name": "diloco", "outer": {"name": "sgd", "lr": 0.6}}
    close(run(6, *speeds, policy=policy, model=CURVED), run(6, *speeds, policy=diloco, model=CURVED))


def test_without_mixing_each_is_a_diloco_of_its_own() -> None:
    """Nesterov's equations for every worker: θ goes its own way, from Δ = (1 − .9ⁿ)(θ − 1)."""
    policy = GASLOC | {"graph": "ring", "lr": 0.6, "momentum": 0.4, "mixing": 0.0}
    recording = run(6, 1.0, 0.5, 0.25, policy=policy)
    expected = []
    theta, velocity = np.zeros(3), np.zeros(3)
    for _ in range(6):
        delta = (1 - 0.9 ** np.array([4, 2, 1])) * (theta - 1)
        velocity = 0.4 * velocity + delta
        theta = theta - 0.6 * (delta + 0.4 * velocity)
        expected.append(theta.mean())
    assert recording.thetas == pytest.approx(expected, abs=1e-12)


def test_three_rounds_of_a_ring_of_four_in_full() -> None:
    """Everybody has two neighbours: λ = 1/3. Workers 1 to 3 have a step a round, worker 0 has four: Δ .3439, .1 …"""
    policy = GASLOC | {"graph": "ring", "lr": 0.5, "momentum": 0.5, "mixing": 0.6}
    recording = run(3, 1.0, 0.25, 0.25, 0.25, policy=policy)
    theta, before = [0.0] * 4, [0.0] * 4
    means = []
    for _ in range(3):
        share = [1 - 0.9**4, 0.1, 0.1, 0.1]
        w = [t - 0.5 * s * (t - 1) for t, s in zip(theta, share)]
        # α λ = .2; of worker 0 the neighbours are 3 and 1, of 2 they are 1 and 3.
        mixed = [w[i] - 0.2 * (2 * w[i] - w[(i - 1) % 4] - w[(i + 1) % 4]) for i in range(4)]
        theta = [x + 0.5 * (now - then) for x, now, then in zip(mixed, w, before)]
        before = w
        means.append(sum(theta) / 4)
    assert recording.thetas == pytest.approx(means, abs=1e-14)
    # The first by hand: w = .17195, .05, .05, .05; the mean moves by 1.5 · their mean.
    assert means[0] == pytest.approx(1.5 * (0.17195 + 3 * 0.05) / 4, abs=1e-14)
    second = [float(update.start.flat[0]) for update in recording.updates if update.id in range(4, 8)]  # type: ignore[index]
    # 0: .17195 − .2 · 2 · .12195 + .5 · .17195; 1 and 3: .05 + .2 · .12195 + .025; 2: .075.
    assert sorted(second) == pytest.approx([0.075, 0.09939, 0.09939, 0.209145], abs=1e-14)


# Who meets whom


def test_of_an_odd_number_one_is_alone_and_everybody_meets_everybody() -> None:
    met = Counter[frozenset[int]]()
    for index in range(200):
        drawn: Edges = list(edges("pairs", 0, index, 5))
        assert len(drawn) == 2 and len({id for pair in drawn for id in pair}) == 4
        met.update(map(frozenset, drawn))
    # 400 meetings of ten pairs: 40 each, give or take four deviations of 5.7.
    assert len(met) == 10 and all(17 < count < 63 for count in met.values())


@pytest.mark.parametrize(
    ("graph", "workers", "expected"),
    [
        ("ring", 4, [(0, 1), (1, 2), (2, 3), (3, 0)]),
        ("ring", 1, []),
        ("pairs", 1, []),
        ("complete", 3, [(0, 1), (0, 2), (1, 2)]),
    ],
)
def test_fixed_graphs(graph: str, workers: int, expected: Edges) -> None:
    assert list(edges(graph, 0, 7, workers)) == expected


# Time and bytes


def timed(policy: dict[str, Any], *speeds: float, rounds: int = 3, **changes: Any) -> Recording:
    """A model of 1 MB, links of 1 MB/s, two local steps of 1 s at speed 1."""
    return run(
        rounds,
        *speeds,
        model={"name": "sized", "parameters": 250_000},
        executor={"name": "timing"},
        network={"bandwidth_gbps": 0.008},
        steps={"name": "fixed", "base": 2},
        policy=policy,
        budget={"local_steps": 2 * rounds * len(speeds)},
        **changes,
    )


def test_who_meets_whom_follows_the_seed_of_the_run_unless_there_is_one_of_its_own() -> None:
    def when(policy: dict[str, Any], seed: int) -> list[Any]:
        """When workers compute: nobody begins before the one that it met has ended."""
        speeds, steps = (1.0, 0.5, 0.25, 0.125), {"name": "fixed", "base": 2}
        recording = run(8, *speeds, policy={"name": "gossip"} | policy, seed=seed, steps=steps)
        return [(update.worker, update.compute) for update in recording.updates]

    assert when({}, 0) != when({}, 1)
    assert when({}, 1) == when({"seed": 1}, 0)


def test_only_the_pair_waits() -> None:
    """Computing takes 2, 4, 2, 8 s, a letter of φ and Δ 2 s. Pairs: {0,3}, {1,2}; {1,3}, {0,2}; {0,3}, {1,2}."""
    assert [list(edges("pairs", 0, index, 4)) for index in range(3)] == [
        [(0, 3), (2, 1)],
        [(3, 1), (0, 2)],
        [(3, 0), (2, 1)],
    ]
    recording = timed({"name": "gossip", "seed": 0}, 1.0, 0.5, 1.0, 0.25)
    computed = {id: [u.compute for u in recording.updates if u.worker == id] for id in range(4)}
    assert computed == {
        0: [(0.0, 2.0), (10.0, 12.0), (14.0, 16.0)],  # 3 comes at 8, its letter takes until 10; with 2 until 14
        1: [(0.0, 4.0), (6.0, 10.0), (20.0, 24.0)],  # with 2 until 6; 3 comes at 18, until 20
        2: [(0.0, 2.0), (6.0, 8.0), (14.0, 16.0)],  # 0 comes at 12
        3: [(0.0, 8.0), (10.0, 18.0), (20.0, 28.0)],
    }
    assert [commit.time for commit in recording.commits] == [10.0, 20.0, 30.0]  # when the last has ended the round
    assert recording.config.policy.report() == {"letters": 12, "consensus": None, "mean_distance": None}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("policy", "codec", "sent"),
    [
        ({"name": "gossip"}, "fp32", [1_000_000, 1_000_000]),  # φ and Δ: 8P
        ({"name": "gossip"}, "fp16", [1_000_000, 500_000]),  # φ is a model
        (GASLOC, "fp16", [1_000_000]),  # 4P
        (GASLOC | {"graph": "ring"}, "fp32", [1_000_000] * 2),  # to each neighbour
        ({"name": "gossip", "graph": "complete"}, "fp32", [1_000_000] * 6),
    ],
)
def test_bytes_that_a_worker_sends_in_a_round(policy: dict[str, Any], codec: str, sent: list[int]) -> None:
    recording = timed(policy, 1.0, 1.0, 1.0, 1.0, rounds=1, codec=codec)
    for worker in range(4):
        assert [transfer.bytes for transfer in recording.transfers if transfer.src == worker] == sent
    assert recording.simulation.now == 2.0 + sum(sent) / 1e6  # one after the other


# Faults

PLAIN = {"name": "gossip", "lr": 0.5, "momentum": 0.0}  # pull .5 as well: a pair meets in the middle, half way down


def crashes(worker: int, at: float, seconds: float = float("inf")) -> dict[str, Any]:
    down = {"worker": worker, "at_seconds": at, "seconds": seconds}
    return {"name": "crashes", "at": [down], "detection_seconds": 0.0}


def test_who_is_down_is_not_waited_for_and_goes_on_from_its_own_model_with_the_next_round() -> None:
    """Two workers, rounds of one step of 1 s; worker 1 is down from 1.5 to 3.5: its second job is lost."""
    recording = run(5, 1.0, 1.0, base=1, policy=PLAIN, faults=crashes(1, 1.5, 2.0))
    jobs = [(update.worker, update.start_time) for update in recording.updates]
    # At 3.5 round 4, which worker 0 began at 3, is under way; worker 1 begins the fifth, and worker 0 waits for it.
    assert [at for id, at in jobs if id == 0][:6] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [at for id, at in jobs if id == 1][:3] == [0.0, 3.5, 5.0]
    # Both go .05 of the way; then worker 0 alone, three times, 1 − .95^k; then Δ = .1 of what is missing, halved.
    alone = [1 - 0.95**k for k in range(1, 5)]
    assert recording.thetas[:4] == pytest.approx([0.05, *((0.05 + each) / 2 for each in alone[1:])], abs=1e-12)
    assert [commit.time for commit in recording.commits][:5] == [1.0, 2.0, 3.0, 4.0, 5.0]
    before = (alone[3] + 0.05) / 2
    assert recording.thetas[4] == pytest.approx(before + 0.05 * (1 - before), abs=1e-12)
    assert [len(commit.shares) for commit in recording.commits] == [2, 1, 1, 1, 2, 2, 2]  # as many as make up ten


def test_who_never_returns_is_never_waited_for() -> None:
    recording = run(6, 1.0, 1.0, 1.0, base=1, policy=PLAIN, faults=crashes(2, 1.5))
    assert [len(commit.shares) for commit in recording.commits] == [3] + [2] * 8  # 3 + 15 of 18 steps, rounded up
    assert recording.simulation.now == pytest.approx(9.0)


def test_a_letter_that_is_lost_makes_only_its_receiver_go_on_alone() -> None:
    """Between two workers, each letter with one in five lost: some rounds one has heard what the other has not."""
    faults = {"name": "message_loss", "probability": 0.2, "detection_seconds": 0.0, "seed": 3}
    recording = run(30, 1.0, 0.5, policy=PLAIN, faults=faults)
    report = recording.config.policy.report()  # type: ignore[attr-defined]
    assert len(recording.commits) == 30 and all(len(commit.shares) == 2 for commit in recording.commits)
    assert 0 < recording.simulation.faults.lost()["messages"] == 60 - report["letters"]
    assert recording.thetas[-1] > 0.9


@pytest.mark.parametrize("policy", [{"name": "gossip"}, GASLOC | {"graph": "two_pairs"}])
def test_under_crashes_and_lost_messages_everything_comes_to_an_end(policy: dict[str, Any]) -> None:
    crash = {"name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002}
    several = [crash, {"name": "message_loss", "probability": 0.1}]
    recording = run(40, 1.0, 0.5, 0.75, 1.0, 0.25, policy=policy, faults={"name": "several", "of": several})
    ledger = recording.simulation.ledger
    assert ledger.lost > 0 and ledger.committed == ledger.trained >= 40 * 14
    assert 0.95 < recording.thetas[-1] < 1.05


def test_a_run_that_is_over_before_it_begins_reports_that_nothing_was_sent() -> None:
    budget = {"target_loss": 1e9, "local_steps": 8}
    recording = run(1, 1.0, 1.0, evaluate={"every_local_steps": 8}, budget=budget)
    assert recording.config.policy.report() == {"letters": 0, "consensus": 0.0, "mean_distance": 0.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "other"}, r"policy\.rule: 'other' is not one of noloco, gasloc"),
        ({"graph": "star"}, r"policy\.graph: 'star' is not one of pairs, two_pairs, ring, complete"),
        ({"graph": "ring"}, r"policy\.graph: 'ring' is not made of groups"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(1, 1.0, 1.0, policy={"name": "gossip"} | options)


def test_of_the_same_config_everything_is_the_same_again() -> None:
    def everything() -> list[Any]:
        recording = run(10, 1.0, 0.5, 0.5, 0.25, 1.0, model=CURVED)
        return [recording.transfers, [torch.from_numpy(each).tolist() for each in models(recording)]]

    assert everything() == everything()
