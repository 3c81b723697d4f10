"""What is due first is to be given first, and no more than may be ahead of what is taken."""

from __future__ import annotations

from halos.training import Job
from halos.training.agenda import Agenda
from tests.made import params


def job(id: int, due: float = 0.0) -> Job:
    return Job(id, id, params(0.0, 0.0), 1, 0, 0, 1, 0, 0.0, False, due)


def ids(jobs: list[Job]) -> list[int]:
    return [each.id for each in jobs]


def made(*due: float) -> Agenda:
    """With jobs 0, 1, …, due then."""
    agenda = Agenda()
    for id, when in enumerate(due):
        agenda.add(job(id, when))
    return agenda


def test_jobs_come_in_the_order_in_which_they_are_due_and_at_one_moment_in_that_of_dispatch() -> None:
    assert ids(made(5.0, 1.0, 4.0, 1.0, float("inf")).upcoming(9)) == [1, 3, 2, 0, 4]


def test_so_many_at_most_are_given_and_not_taken() -> None:
    agenda = made(3.0, 1.0, 2.0, 4.0)
    assert ids(agenda.upcoming(2)) == [1, 2] and agenda.upcoming(0) == []
    agenda.give(job(1))
    assert ids(agenda.upcoming(2)) == [2]
    agenda.give(job(0))  # whatever is due before
    assert agenda.upcoming(2) == [] and agenda.upcoming(1) == [] and ids(agenda.upcoming(3)) == [2]
    agenda.take()
    assert ids(agenda.upcoming(2)) == [2]


def test_a_job_whose_holder_died_waits_again_at_its_place() -> None:
    agenda = made(1.0, 2.0, 3.0)
    for id in (0, 1):
        agenda.give(job(id))
    assert list(agenda.waiting) == [2]
    agenda.take_back(job(1, 2.0))
    assert sorted(agenda.waiting) == [1, 2] and ids(agenda.upcoming(3)) == [1, 2]


def test_one_that_waits_can_be_withdrawn_once() -> None:
    agenda = made(1.0, 2.0)
    assert agenda.withdraw(job(0)) and not agenda.withdraw(job(0))
    assert ids(agenda.upcoming(9)) == [1]
