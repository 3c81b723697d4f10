"""A process that computes what it is sent, one after another, until nobody is there to send anything."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, NoReturn, Optional

from halos.training.elsewhere import Elsewhere, portable

PR_SET_PDEATHSIG = 1  # Linux: a signal that this process is sent when its parent dies


class Answer(NamedTuple):
    """What came of a message: a value, or an error and its traceback as text."""

    value: Any
    error: Optional[BaseException] = None
    trace: str = ""


def serve(compute: Callable[[Any], Any], pipe: Connection, others: Iterable[Connection], parent: int) -> NoReturn:
    """Answer every message in `pipe` with what `compute` makes of it; end with `parent`, the process of that number.

    `others` are ends of pipes that a fork has duplicated, and which are not this process's.
    """
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is said to all; who began us ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:  # it may have died before
        with suppress(EOFError, OSError):
            while True:
                pipe.send_bytes(pickle.dumps(answer(compute, pickle.loads(pipe.recv_bytes()))))
    os._exit(0)


def answer(compute: Callable[[Any], Any], message: Any) -> Answer:
    """Return what comes of a message."""
    try:
        return Answer(compute(message))
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        return Answer(None, portable(error), text)


def value(given: Answer) -> Any:
    """Return an answer's value; raises its error, as here, with where it came from as its cause."""
    if given.error is not None:
        raise given.error from Elsewhere(given.trace)
    return given.value


@contextmanager
def signals_waiting() -> Iterator[None]:
    """Ctrl-C and SIGTERM come afterwards: a process that has just begun has no handlers of its own yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
