"""NoLoCo gossip: rounds written out in plain numbers, who waits for whom, and that nothing is lost or counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from halos import ConfigError
from halos.testing import Recording, record, tiny

PLUGIN = [str(Path(__file__).parents[1] / "noloco_gossip.py")]
LR, ALPHA, GAMMA = 0.5, 0.5, 0.8
POLICY = {"name": "noloco_gossip", "lr": LR, "momentum": ALPHA, "pull": GAMMA}
Pairs = list[set[frozenset[int]]]  # who meets whom, by round


def apart(*speeds: float) -> dict[str, Any]:
    """A cluster with a region for every worker, so that a transfer's ends name its sender and receiver."""
    return {"regions": [{"workers": [speed]} for speed in speeds], "step_time_ms": 1000.0}


def run(rounds: int, *speeds: float, **changes: Any) -> Recording:
    """Workers of four local steps a round at speed 1, on a quadratic with its optimum at 1, from 0; links of 1 ms."""
    sections = tiny(
        model={"dtype": "float64", "size": 1},
        cluster=apart(*speeds),
        network={"latency_ms": 1.0},
        steps={"name": "by_speed", "base": 4},
        policy=POLICY,
        budget={"local_steps": rounds * sum(round(4 * speed) for speed in speeds)},
    )
    return record(sections | changes, PLUGIN)


def report(recording: Recording) -> dict[str, int]:
    numbers: dict[str, int] = recording.config.policy.report()  # type: ignore[attr-defined]
    return numbers


def thetas(recording: Recording) -> list[float]:
    return [float(commit.params.flat[0]) for commit in recording.global_commits]  # type: ignore[index]


def pairs(recording: Recording, rounds: int) -> Pairs:
    """Who met whom, from what went over the links: each worker sends a replica as a round begins, then a difference."""
    met: Pairs = [set() for _ in range(rounds)]
    for worker in recording.simulation.workers:
        begun = [update.start_time for update in recording.updates if update.worker == worker.id]
        assert len(begun) == rounds
        sent = [transfer for transfer in recording.transfers if transfer.src == worker.region]
        for transfer in sent[::2]:
            assert transfer.dst is not None
            met[begun.index(transfer.start_time)].add(frozenset([worker.id, transfer.dst]))
    return met


def by_hand(met: Pairs, steps: list[int]) -> list[float]:
    """The mean of the replicas after each round, from the formulas; n local steps leave 0.9ⁿ of the way to 1."""
    phi, velocity = [0.0] * len(steps), [0.0] * len(steps)
    means = []
    for now in met:
        delta = [(1 - 0.9**n) * (x - 1) for n, x in zip(steps, phi)]
        together = {worker: sorted(pair) for pair in now for worker in pair}
        for i in range(len(steps)):
            group = together.get(i, [i])
            step = LR * sum(delta[j] for j in group) / len(group)
            attraction = GAMMA * (phi[i] - sum(phi[j] for j in group) / len(group))
            velocity[i] = ALPHA * velocity[i] + step + attraction
        phi = [x - v for x, v in zip(phi, velocity)]
        means.append(sum(phi) / len(phi))
    return means


def test_two_rounds_of_three_workers_in_full() -> None:
    steps = {"name": "by_speed", "base": 2}  # 2, 1 and 1 local steps: they go .19, .1 and .1 of the way
    recording = run(2, 1.0, 0.5, 0.5, steps=steps, budget={"local_steps": 8})
    assert pairs(recording, 2) == [{frozenset([1, 2])}, {frozenset([0, 2])}]
    # Round 1: 1 and 2 meet, Δ̄ = −.1; 0 is alone, Δ = −.19. v = .5 Δ̄; φ = (.095, .05, .05).
    first = (0.095 + 0.05 + 0.05) / 3
    # Round 2: Δ = .19 (.095 − 1) = −.17195 and twice .1 (.05 − 1) = −.095. 0 and 2 meet: Δ̄ = −.133475, and they are
    # pulled by .8 · .0225 = ±.018. v_0 = −.0475 − .0667375 + .018 = −.0962375, v_2 = −.025 − .0667375 − .018 =
    # −.1097375; 1 is alone: v_1 = −.025 − .0475 = −.0725. φ = (.1912375, .1225, .1597375).
    second = (0.1912375 + 0.1225 + 0.1597375) / 3
    assert thetas(recording) == pytest.approx([first, second], abs=1e-12)


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.25), (1.0, 0.75, 0.5, 0.25), (1.0, 0.75, 0.5, 0.5, 0.25)])
def test_twenty_rounds_equal_the_formulas(speeds: tuple[float, ...]) -> None:
    recording = run(20, *speeds)
    expected = by_hand(pairs(recording, 20), [round(4 * speed) for speed in speeds])
    assert thetas(recording) == pytest.approx(expected, abs=1e-12)


def test_every_round_pairs_all_but_an_odd_one_and_everybody_meets_everybody() -> None:
    met = pairs(run(60, 1.0, 1.0, 1.0, 1.0, 1.0), 60)
    for now in met:
        assert len(now) == 2 and len(frozenset.union(*now)) == 4
    assert len(set().union(*met)) == 5 * 4 / 2


def test_the_seed_and_nothing_else_decides_who_meets_whom() -> None:
    def met(seed: int, *speeds: float) -> Pairs:
        return pairs(run(20, *speeds, policy=POLICY | {"seed": seed}), 20)

    assert met(0, 1.0, 1.0, 1.0, 1.0) == met(0, 1.0, 0.5, 1.0, 0.25)
    assert met(0, 1.0, 1.0, 1.0, 1.0) != met(1, 1.0, 1.0, 1.0, 1.0)


CURVED = {"name": "quadratic", "size": 3, "dtype": "float64", "curvature": [1, 2, 3]}


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.5)])
def test_one_worker_or_two_without_momentum_are_diloco_with_outer_sgd(speeds: tuple[float, ...]) -> None:
    """Two always meet, and never differ: there is nothing to pull at."""
    gossip = run(8, *speeds, policy=POLICY | {"momentum": 0.0}, model=CURVED)
    outer = {"name": "sgd", "lr": LR}
    diloco = run(8, *speeds, model=CURVED, policy={"name": "diloco", "outer": outer})
    assert len(gossip.global_commits) == len(diloco.global_commits) == 8
    for ours, theirs in zip(gossip.global_commits, diloco.global_commits):
        torch.testing.assert_close(ours.params.flat, theirs.params.flat, rtol=1e-12, atol=1e-12)


def test_of_the_same_config_everything_is_the_same_again() -> None:
    def everything() -> list[Any]:
        recording = run(10, 1.0, 0.5, 0.5, 0.25, 1.0, model=CURVED | {"noise": 0.3})
        updates = [(each.worker, each.time, each.samples, each.losses) for each in recording.updates]
        return [updates, recording.transfers, [commit.params.flat.tolist() for commit in recording.commits]]  # type: ignore[union-attr]

    assert everything() == everything()


@pytest.mark.parametrize("replica", [1.0, 4.0])
def test_a_replica_travels_during_the_work_and_the_difference_after_both(replica: float) -> None:
    compute = 2.0
    recording = run(
        3,
        1.0,
        1.0,
        model={"name": "sized", "parameters": 250_000},  # 1 MB
        executor={"name": "timing"},
        network={"bandwidth_gbps": 0.008 / replica},
        steps={"name": "fixed", "base": 2},
        budget={"local_steps": 12},
    )
    assert [commit.time for commit in recording.commits] == pytest.approx(
        [n * (max(compute, replica) + replica) for n in (1, 2, 3)]
    )


def test_a_pair_waits_for_nobody_else() -> None:
    speeds, rounds = (1.0, 0.9, 0.5, 0.3, 0.8), 12
    fixed = {"name": "fixed", "base": 4}
    recording = run(rounds, *speeds, steps=fixed, budget={"local_steps": 4 * len(speeds) * rounds})
    ready = [0.0] * len(speeds)  # when each begins its next round
    for now, commit in zip(pairs(recording, rounds), recording.commits):
        ended = [begun + 4 / speed for begun, speed in zip(ready, speeds)]
        ready = list(ended)
        for one, other in (sorted(pair) for pair in now):
            ready[one] = max(ended[one], ended[other] + 0.001)
            ready[other] = max(ended[other], ended[one] + 0.001)
        assert commit.time == pytest.approx(max(ready), rel=1e-12)  # the last of them completes the round
    begun = [update.start_time for update in recording.updates if update.worker == 0]
    assert (
        begun[-1] < recording.commits[-2].time
    )  # worker 0 is in the last round before others have left the one before


def test_differences_go_through_the_codec_and_replicas_do_not() -> None:
    recording = run(1, 1.0, 0.25, codec={"name": "bf16"})
    assert sorted(transfer.bytes for transfer in recording.transfers) == [2, 2, 4, 4]
    deltas = [0.9**4 - 1, 0.9 - 1]
    decoded = [float(torch.tensor(each, dtype=torch.float64).bfloat16()) for each in deltas]
    assert decoded[0] != deltas[0] and decoded[1] != deltas[1]
    # Each has its own difference as it is, and the other's as it arrives.
    replicas = [-LR * (deltas[0] + decoded[1]) / 2, -LR * (decoded[0] + deltas[1]) / 2]
    assert thetas(recording) == pytest.approx([sum(replicas) / 2], abs=1e-12)


@pytest.mark.parametrize("bandwidth", [float("inf"), 1e-9])
@pytest.mark.parametrize("regions", [[1], [2], [0, 3, 0], [1, 1, 0, 1], [5, 0, 7, 4], [1] * 16])
def test_every_step_is_committed_once_and_there_is_no_collective(regions: list[int], bandwidth: float) -> None:
    workers, rounds = sum(regions), 7
    recording = run(
        rounds,
        cluster={"regions": [{"workers": [1.0, 0.6, 0.3, 1.0, 0.1, 0.7, 0.5][:n] or []} for n in regions]},
        network={"bandwidth_gbps": bandwidth},
        steps={"name": "fixed", "base": 3},
        budget={"local_steps": 3 * workers * rounds - 2},  # the last round is begun, and ended, all the same
    )
    ledger = recording.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.dropped, ledger.in_flight) == (3 * workers * rounds,) * 2 + (0, 0)
    assert [len(commit.shares) for commit in recording.commits] == [workers] * rounds
    assert {share.hop_staleness for commit in recording.commits for share in commit.shares} == {0}
    assert [transfer.kind for transfer in recording.transfers] == ["send"] * (4 * (workers // 2) * rounds)
    assert report(recording)["exchanges"] == workers // 2 * rounds


def test_a_share_drifts_by_as_much_as_its_replica_was_off_the_mean() -> None:
    recording = run(2, 1.0, 0.5, 0.5, steps={"name": "by_speed", "base": 2}, budget={"local_steps": 8})
    # The replicas after round 1 are .095, .05 and .05 (see above), their mean .065.
    assert [share.hop_drift for share in recording.commits[1].shares] == pytest.approx([0.03, 0.015, 0.015])


def test_weights_compare_the_two_of_a_pair_and_who_is_alone_counts_whole() -> None:
    weights = {"name": "by_worker", "workers": [1.0, 3.0, 7.0]}
    recording = run(6, 1.0, 1.0, 1.0, weights=weights, steps={"name": "fixed", "base": 4}, budget={"local_steps": 72})
    for met, updates in zip(pairs(recording, 6), zip(*[iter(recording.updates)] * 3)):
        (pair,) = met
        total = sum(weights["workers"][worker] for worker in pair)  # type: ignore[index]
        for update in updates:
            counts = 2 * weights["workers"][update.worker] / total if update.worker in pair else 1.0  # type: ignore[index]
            assert update.factor == pytest.approx(counts)


def test_the_report_tells_exchanges_between_regions_from_others() -> None:
    recording = run(
        40, cluster={"regions": [{"workers": [1.0, 1.0]}, {"workers": [1.0, 1.0]}]}, budget={"local_steps": 640}
    )
    crossings = sum(transfer.src != transfer.dst for transfer in recording.transfers)
    assert report(recording) == {"exchanges": 80, "exchanges_between_regions": crossings / 4}
    assert 0 < crossings < len(recording.transfers)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lr", 0.0, "0.0 is not a positive, finite number"),
        ("momentum", 1.0, r"1.0 is not in \[0, 1\)"),
        ("pull", -0.1, "-0.1 is not zero or a positive, finite number"),
    ],
)
def test_a_mistake_is_answered_with_the_full_key(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"policy\.{field}: {message}"):
        run(1, 1.0, policy=POLICY | {field: value})
