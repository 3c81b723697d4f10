"""A process that answers: values, errors as they were, and its end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal

import pytest

from halos.errors import ConfigError, Diverged, UserError
from halos.training.parallel.child import Elsewhere, answer, serve, value


class Stubborn(Exception):
    """One that cannot be sent."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [Diverged("loss is nan"), UserError("no"), ConfigError("model", "is wrong"), ZeroDivisionError("division by zero")],
)
def test_an_error_arrives_as_it_was_with_where_it_came_from(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        value(pickle.loads(pickle.dumps(answer(failing, error))))
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)
    cause = raised.value.__cause__
    assert isinstance(cause, Elsewhere) and "in failing" in str(cause)


def test_one_that_cannot_be_sent_arrives_in_its_words() -> None:
    with pytest.raises(RuntimeError, match=r"^Stubborn: this and that$"):
        value(pickle.loads(pickle.dumps(answer(failing, Stubborn("this", "that")))))


def test_a_process_answers_and_ends_when_nobody_asks_any_more() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(lambda message: 2 * message, theirs, [ours], os.getpid()))
    process.start()
    theirs.close()
    for message in (1, "a"):
        ours.send_bytes(pickle.dumps(message))
        assert value(pickle.loads(ours.recv_bytes())) == 2 * message
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)  # Ctrl-C is its parent's to hear
    ours.send_bytes(pickle.dumps(3))
    assert value(pickle.loads(ours.recv_bytes())) == 6
    ours.close()
    process.join(30)
    assert process.exitcode == 0


def test_a_process_whose_parent_has_gone_before_it_began_answers_nothing() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(lambda message: message, theirs, [ours], os.getpid() + 1))
    process.start()
    process.join(30)
    assert process.exitcode == 0
