"""A pool: what is due first is given first, little beyond it, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from halos.errors import Died
from halos.training import Job
from halos.training.parallel.child import value
from halos.training.parallel.pool import Pool
from tests.made import params


def job(id: int, due: float = 0.0, steps: int = 1) -> Job:
    return Job(id, id, params(0.0, 0.0), steps, 0, 0, steps, 0, 0.0, False, due)


class Given:
    """What a pool has given away, in order: ids of jobs."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.message: Any = None

    def __call__(self, job: Job) -> Any:
        self.ids.append(job.id)
        return job.id, self.message


@contextmanager
def opened(compute: Any, processes: int = 1) -> Iterator[tuple[Pool, Given]]:
    given = Given()
    pool = Pool(compute, given, processes)
    try:
        yield pool, given
    finally:
        pool.close()


def taken(pool: Pool, job: Job) -> Any:
    """What came of a job; the pool goes on."""
    found = value(pool.answer(job))
    pool.go_on()
    return found


def echo(message: Any) -> Any:
    return message[0] * 10


def test_jobs_are_given_in_the_order_in_which_they_are_due_and_no_more_than_may_be_ahead() -> None:
    with opened(echo) as (pool, given):
        for id, due in enumerate([5.0, 1.0, 4.0, 2.0, 6.0, 3.0]):
            pool.add(job(id, due))
        assert given.ids == [] and pool.ahead == 3
        assert taken(pool, job(1)) == 10
        assert set(given.ids) <= {1, 3, 5, 2} and given.ids[:3] == [1, 3, 5]  # due at 1, 2, 3 and 4
        assert [taken(pool, job(id)) for id in (3, 5, 2, 0, 4)] == [30, 50, 20, 0, 40]
        assert given.ids == [1, 3, 5, 2, 0, 4]


def test_what_is_asked_for_is_given_at_once_whatever_is_due_before() -> None:
    with opened(echo) as (pool, given):
        for id in range(8):
            pool.add(job(id, due=float(id)))
        assert value(pool.answer(job(7))) == 70
        assert given.ids.index(7) == 0


def test_jobs_go_where_there_is_least_to_do() -> None:
    """The first process has 100 steps, so the second has the two that take one."""

    def who(message: Any) -> int:
        return os.getpid()

    with opened(who, processes=2) as (pool, _):
        for id, steps in enumerate([100, 1, 1]):
            pool.add(job(id, due=float(id), steps=steps))
        first, second, third = (value(pool.answer(job(id))) for id in range(3))
    assert first != second == third


def test_messages_larger_than_a_pipe_go_both_ways_without_anybody_waiting_for_ever() -> None:
    def same(message: Any) -> Any:
        return message

    large = b"x" * 5_000_000
    with opened(same, processes=2) as (pool, given):
        given.message = large
        for id in range(6):
            pool.add(job(id, due=float(id)))
        assert [taken(pool, job(id)) for id in range(6)] == [(id, large) for id in range(6)]


def test_a_job_that_was_given_to_nobody_can_be_taken_back() -> None:
    with opened(echo) as (pool, given):
        pool.ahead = 0
        for id in range(2):
            pool.add(job(id))
        assert pool.withdraw(job(0)) and not pool.withdraw(job(0))
        pool.ahead = 3
        assert value(pool.answer(job(1))) == 10
        assert given.ids == [1]


def test_the_jobs_of_a_process_that_dies_are_done_by_another(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever gets the first job kills itself, twice; of three processes one is left, which does all."""
    deaths = os.pipe()

    def dying(message: Any) -> Any:
        if message[0] == 0 and os.read(deaths[0], 1) == b"x":
            os.kill(os.getpid(), signal.SIGKILL)
        return message[0] * 10

    with opened(dying, processes=3) as (pool, _):
        os.write(deaths[1], b"xx.")
        for id in range(5):
            pool.add(job(id, due=float(id)))
        assert [taken(pool, job(id)) for id in range(5)] == [0, 10, 20, 30, 40]
    assert [message.split("process ")[1].split(" ", 1)[1].split(" (")[0] for message in caplog.messages] == [
        "was killed by SIGKILL"
    ] * 2


def test_when_the_last_one_dies_it_says_how_and_what_it_had_in_hand_and_so_for_every_job() -> None:
    def dying(message: Any) -> Any:
        os._exit(7)

    with opened(dying) as (pool, _):
        for id in range(2):
            pool.add(job(id, due=float(id)))
        with pytest.raises(Died) as died:
            pool.answer(job(0))
        assert str(died.value).startswith("executor parallel: process ")
        assert str(died.value).endswith(
            " ended by itself, with exit code 7 with job 0 of worker 0 and job 1 of worker 1 in hand; no other is left"
        )
        with pytest.raises(Died):
            pool.answer(job(1))


def test_closed_it_leaves_no_process_even_one_that_is_computing() -> None:
    def slow(message: Any) -> Any:
        time.sleep(1000)

    with opened(slow, processes=2) as (pool, _):
        pids = [child.process.pid for child in pool._children]
        pool.add(job(0))
        pool._give()
        pool.close()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid or 0, 0)
