"""Errors on their way from another process, and the words for jobs that went with one."""

from __future__ import annotations

import threading

from halos.errors import ConfigError
from halos.training import Job
from halos.training.elsewhere import in_hand, portable
from halos.values.params import Layout, Params


def test_an_error_that_arrives_as_it_is_stays_so() -> None:
    error = ConfigError("a.key", "is wrong")
    assert portable(error) is error


def test_one_that_cannot_be_sent_arrives_in_its_words() -> None:
    stuck = ValueError(threading.Lock())
    assert type(portable(stuck)) is RuntimeError and str(portable(stuck)).startswith("ValueError: <unlocked _thread")


def test_jobs_of_a_process_that_died_are_named() -> None:
    start = Params(Layout({"w": (1,)}), None)
    jobs = [Job(id, worker, start, 1, 0, 0, 1, 0, 0.0) for id, worker in ((4, 1), (7, 0))]
    assert in_hand(jobs) == " with job 4 of worker 1 and job 7 of worker 0 in hand" and in_hand([]) == ""
