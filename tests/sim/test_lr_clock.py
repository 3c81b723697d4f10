"""The learning-rate clock, by hand: two workers of batch 1 in global batches of 2, unless said otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from halos.sim.lr_clock import LrClock
from halos.testing import record, tiny
from halos.testing.recording import Recording
from tests.faulty import HERE, crash

CLUSTER = {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0}


def test_a_job_begins_after_as_many_steps_as_there_were_global_batches() -> None:
    clock = LrClock(1, 2)
    assert [clock.job(worker, samples) for worker, samples in ((0, 0), (1, 3), (0, 6), (1, 9))] == [0, 1, 3, 4]


def test_no_workers_clock_goes_back_when_what_was_dispatched_is_lost() -> None:
    clock = LrClock(1, 2)
    assert [clock.job(1, 30), clock.job(1, 2), clock.job(0, 3), clock.job(1, 31)] == [15, 15, 1, 15]
    assert clock.job(0, 0, given=40) == 40  # whoever says it, is right
    assert clock.job(0, 50) == 40


def test_a_round_after_an_odd_number_of_steps_is_at_one_step_for_all() -> None:
    clock = LrClock(1, 2)
    # 16 steps were taken by twos of 8, and the round is of 5: no multiple of 10, so nothing is rounded to one.
    assert [clock.round([8, 8], 0), clock.round([5, 5], 16), clock.round([5, 5], 26)] == [0, 8, 13]
    assert clock.round([5, 5], 20) == 13  # it does not go back
    assert clock.job(0, 20) == 10  # though a worker that has had no job yet is where the data is


def by_worker(run: Recording) -> list[list[int]]:
    return [[update.lr_step for update in run.updates if update.worker == worker] for worker in range(2)]


def test_after_a_lost_job_all_workers_of_a_round_are_at_one_step_and_it_is_repeated_for_what_was_lost() -> None:
    """Worker 1 is down from 1 s to 2 s of the first round's 4 s; a warm-up of 8 steps, rate 0.1 · s / 8 in step s.

    In the first round only worker 0 is heard. The second begins where it began, for half of it was lost: both
    workers are at 0, and in the third at 4.
    """
    sections = tiny(
        cluster=CLUSTER, model={"dtype": "float64", "size": 1}, steps={"base": 4}, budget={"local_steps": 16},
        faults=crash(1, 1.0, 1.0),
    )  # fmt: skip
    schedule = {"name": "warmup_cosine", "warmup": 8, "total": 8}
    run = record(sections | {"train": sections["train"] | {"schedule": schedule}})
    assert by_worker(run) == [[0, 0, 4], [0, 4]]
    left = 1.0  # of 1 − θ
    for first in (0, 0, 4):
        for step in range(first + 1, first + 5):
            left *= 1 - 0.1 * step / 8
    assert run.thetas[-1] == pytest.approx(1 - left, abs=1e-12)
    assert run.thetas[-1] == pytest.approx(0.44802, abs=5e-6)


CRASHES = {"name": "crashes", "between_failures_hours": 0.006, "to_repair_hours": 0.002}
LOST = {"name": "message_loss", "probability": 0.2}
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("diloco", {}),
    ("diloco", {"compute": {"name": "testing_jitter"}}),
    ("async_local_sgd", {}),
    ("async_local_sgd", {"steps": {"name": "by_speed", "base": 30}}),
    ("halos", {}),
    ("diloco", {"steps": {"name": "by_speed", "base": 30}}),
    ("diloco", {"train": {"global_batch_size": 3}}),
]


@pytest.mark.parametrize("faults", [CRASHES, LOST, {"name": "several", "of": [CRASHES, LOST]}], ids=str)
@pytest.mark.parametrize(("policy", "changes"), POLICIES, ids=str)
def test_under_faults_no_workers_clock_goes_back_and_rounds_of_equal_steps_have_one(
    policy: str, changes: dict[str, Any], faults: dict[str, Any]
) -> None:
    cluster = {"regions": [{"workers": [1.0, 0.6]}, {"workers": [0.1]}], "step_time_ms": 1000.0}
    sections = tiny(
        cluster=cluster, policy={"name": policy}, budget={"local_steps": 400}, faults=faults,
        executor={"name": "timing"}, **({"steps": {"base": 4}} | changes),
    )  # fmt: skip
    run = record(sections, plugins=["halos.testing.situations"])
    for worker in range(3):
        steps = [update.lr_step for update in run.updates if update.worker == worker]
        assert steps == sorted(steps)
    assert run.simulation.ledger.lost or run.simulation.faults.lost()["messages"]
    if policy == "diloco" and "steps" not in changes and "train" not in changes:
        rounds = {(update.start_time, update.lr_step) for update in run.updates}
        assert len(rounds) == len({began for began, _ in rounds}) > 20
        # Every round takes 4 of 12 steps of data in; what is lost is repeated, so the last is where the data is.
        ledger = run.simulation.ledger
        assert abs(max(step for _, step in rounds) - ledger.trained / 3) <= 2 * 4


def test_a_worker_that_is_gone_for_ever_leaves_the_others_at_one_step_by_the_data_there_is() -> None:
    run = record(tiny(cluster=CLUSTER, steps={"base": 4}, budget={"local_steps": 28}, faults=crash(1, 9.0)))
    # Rounds 0 and 1 are whole. Then every round brings half of one.
    assert by_worker(run) == [[0, 4, 8, 8, 12], [0, 4]]


def test_messages_that_are_lost_do_not_set_anybody_back() -> None:
    """What was trained is data, whether it arrives or not."""
    run = record(
        tiny(
            cluster=CLUSTER, steps={"base": 4}, budget={"local_steps": 24}, faults={"name": "losing", "messages": [1]}
        ),
        plugins=[HERE],
    )
    assert by_worker(run) == [[0, 4, 8], [0, 4, 8]]
