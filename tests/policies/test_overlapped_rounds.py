"""When overlapped rounds end: the recurrences, round by round, under jitter.

Worker i ends round r at F_i(r) after computing for c_i(r); the all-reduce of round r runs from S(r) to E(r), one after
another: S(r) = max(max_i F_i(r), E(r−1)). A worker goes on as soon as the mean of k rounds ago is there.
"""

from __future__ import annotations

from typing import Any

import pytest

from halos.testing import Recording, record, tiny
from halos.values.records import Update

PLUGINS = [
    "halos_one_step_delay",
    "halos_eager_diloco",
    "halos_overlap_local_sgd",
    "halos_heterogeneous_steps",
]
SPEEDS = [1.0, 0.9, 0.6, 0.85]
GBIT_PER_MODEL = 4.0


def run(policy: dict[str, Any], seconds: float, rounds: int, sigma: float, seed: int) -> Recording:
    """Four jittered workers of 3 local steps of at least 1 s; an all-reduce of 2 · 3/4 · 4 Gbit takes `seconds`."""
    workers = len(SPEEDS)
    bandwidth = 2 * (workers - 1) / workers * GBIT_PER_MODEL / seconds
    sections = tiny(
        cluster={"regions": [{"workers": SPEEDS}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": bandwidth},
        model={"wire_bytes": int(GBIT_PER_MODEL * 1e9 / 8)},
        compute={"name": "jitter", "sigma": sigma},
        steps={"name": "fixed", "base": 3},
        policy=policy,
        executor={"name": "timing"},
        budget={"local_steps": 3 * workers * rounds},
    )
    return record({**sections, "seed": seed}, PLUGINS)


def rounds_of(recording: Recording) -> list[list[Update]]:
    """Every round's updates in order of worker; each worker has one a round."""
    by_worker: dict[int, list[Update]] = {}
    for update in sorted(recording.updates, key=lambda each: each.id):
        by_worker.setdefault(update.worker, []).append(update)
    return [list(each) for each in zip(*(by_worker[worker] for worker in sorted(by_worker)))]


POLICIES: list[tuple[dict[str, Any], int]] = [
    ({"name": "diloco"}, 0),
    ({"name": "one_step_delay", "outer_delay": 0}, 0),
    ({"name": "one_step_delay", "outer_delay": 1}, 1),
    ({"name": "one_step_delay", "outer_delay": 2}, 2),
    ({"name": "eager_diloco", "outer_delay": 1}, 1),
    ({"name": "eager_diloco", "outer_delay": 2}, 2),
    ({"name": "one_step_delay", "outer_delay": 2, "merge": "corrected"}, 2),
    ({"name": "overlap_local_sgd"}, 1),
    ({"name": "overlap_local_sgd", "merge": "corrected"}, 1),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("share", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("policy", "k"), POLICIES, ids=lambda each: str(each))
def test_every_round_ends_when_the_recurrence_says(policy: dict[str, Any], k: int, share: float, seed: int) -> None:
    all_reduce, count = 5.0 * share, 12  # the slowest worker's round takes about 5 s
    recording = run(policy, all_reduce, count, sigma=0.4, seed=seed)
    rounds = rounds_of(recording)
    assert len(rounds) == count
    ends = [0.0] * len(SPEEDS)  # F_i(r)
    means: list[float] = []  # E(1), E(2), …
    for index, updates in enumerate(rounds):
        computes = [update.compute[1] - update.compute[0] for update in updates]
        awaited = means[index - 1 - k] if index - 1 - k >= 0 else 0.0
        if k == 0:
            ends = [awaited + each for each in computes]
        else:
            ends = [max(end, awaited) + each for end, each in zip(ends, computes)]
        assert [update.time for update in updates] == pytest.approx(ends, abs=1e-9)
        means.append(max([*ends, *means[-1:]]) + all_reduce)
    assert len({round(update.compute[1] - update.compute[0], 6) for each in rounds for update in each}) > 40, (
        "no jitter"
    )
    assert recording.simulation.now == pytest.approx(means[-1], abs=1e-9)
    assert [each.time for each in recording.transfers] == pytest.approx(means, abs=1e-9)


@pytest.mark.parametrize("k", [1, 2])
def test_the_pipeline_is_never_later_than_a_barrier_would_be(k: int) -> None:
    """With a barrier in front of every round all workers begin at once; without, the early ones are ahead."""
    for seed in range(5):
        recording = run({"name": "one_step_delay", "outer_delay": k}, 2.0, 20, sigma=0.4, seed=seed)
        barrier, over = 0.0, [0.0] * k  # when the next round begins everywhere; E of the rounds before
        for updates in rounds_of(recording):
            end = max(barrier, over[-k]) + max(update.compute[1] - update.compute[0] for update in updates)
            over.append(max(end, over[-1]) + 2.0)
            barrier = end
        assert recording.simulation.now <= over[-1] + 1e-9
