"""Asynchronous Local-SGD: restarts and grace windows worked out by hand."""

from __future__ import annotations

import pytest

from halos.errors import ConfigError
from halos.policies.async_local_sgd import AsyncLocalSGD
from halos.testing import record, tiny
from tests.faulty import crash, one_async_worker
from tests.policies.speeds import speeds

DELAYED = {"name": "delayed_nesterov", "lr": 1.0, "beta": 0.9, "buffer": 1}


def test_without_grace_an_asynchronous_worker_restarts_at_once() -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED}
    run = record(tiny(cluster=speeds([2, 1]), policy=policy, budget={"local_steps": 12}))
    # Two steps take 2 s and 4 s; at 4 s both arrive, the slow one's event having been scheduled first.
    assert [(update.worker, update.start_time, update.time) for update in run.updates] == [
        (0, 0.0, 2.0),
        (1, 0.0, 4.0),
        (0, 2.0, 4.0),
        (0, 4.0, 6.0),
        (1, 4.0, 8.0),
        (0, 6.0, 8.0),
    ]
    assert [commit.shares[0].hop_staleness for commit in run.commits] == [0, 1, 1, 0, 2, 1]


@pytest.mark.parametrize(
    ("grace", "starts"),
    [
        (0.5, {0: [0, 2.5, 4.5, 7, 9.5], 1: [0, 4.5, 8.5], 2: [0, 8.5]}),  # at 4.5: 0 and 1, at 8.5: 1 and 2
        (1.0, {0: [0, 3, 5, 8], 1: [0, 5, 10], 2: [0, 8]}),  # at 5 s sharp 0 is in the window that closes then
        (2.0, {0: [0, 4, 8], 1: [0, 4, 8], 2: [0, 8]}),  # at 8 s sharp all three are in
        (100.0, {0: [0, 8, 16], 1: [0, 8, 16], 2: [0, 8, 16]}),  # all are in at 8 s: nobody waits for the rest
    ],
)
def test_a_grace_window_counts_from_its_first_arrival_and_restarts_its_workers_together(
    grace: float, starts: dict[int, list[float]]
) -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED, "grace_seconds": grace}
    run = record(tiny(cluster=speeds([4, 2, 1]), policy=policy, steps={"base": 2}, budget={"local_steps": 60}))
    for worker, expected in starts.items():
        mine = [update.start_time for update in run.updates if update.worker == worker]
        assert mine[: len(expected)] == pytest.approx(expected)


def test_workers_of_a_grace_window_restart_from_the_same_model() -> None:
    policy = {"name": "async_local_sgd", "outer": DELAYED, "grace_seconds": 100.0}
    run = record(tiny(cluster=speeds([4, 2, 1]), policy=policy, budget={"local_steps": 12}))
    assert [update.start_version for update in run.updates] == [0, 0, 0, 3, 3, 3]
    assert [commit.time for commit in run.commits] == [2.0, 4.0, 8.0, 10.0, 12.0, 16.0]  # each applied at once


def test_asynchronous_local_sgd_misses_an_update() -> None:
    run = one_async_worker(crash(0, 3.0, 2.0), steps=6)
    assert [update.time for update in run.updates] == pytest.approx([2.0, 7.0, 9.0])
    assert run.thetas == pytest.approx([1 - 0.81, 1 - 0.81**2, 1 - 0.81**3])
    assert run.simulation.ledger.lost == 2


def test_a_grace_period_is_not_negative() -> None:
    with pytest.raises(ConfigError, match="grace_seconds: -1"):
        AsyncLocalSGD(grace_seconds=-1)


def test_a_grace_period_ends_after_an_arrival_that_is_at_its_end_but_for_rounding() -> None:
    """Worker 0 is there after 0.1 s, worker 1, on paper, 0.6 s later; it takes 0.1 / (1 / 7) s."""
    assert 0.1 + 0.6 < 0.1 / (1 / 7)
    for step_time, seconds, late in ((100.0, 0.6, 7), (100.0, 0.2, 3), (10.0, 0.06, 7)):
        run = record(
            tiny(
                cluster={"regions": [{"workers": [1.0, 1 / late]}], "step_time_ms": step_time},
                policy={"name": "async_local_sgd", "grace_seconds": seconds},
                steps={"name": "fixed", "base": 1},
                budget={"local_steps": 6},
            )
        )
        period = late * step_time / 1000
        starts = {round(update.start_time / period, 9) for update in run.updates}
        assert starts <= {0.0, 1.0, 2.0}, (seconds, late)  # always both, from one model
        assert [update.start_version for update in run.updates] == [0, 0, 2, 2, 4, 4]
