"""The line of a sweep, and what it says of the time left."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from halos.sweep.pool import Ended, Pool
from halos.sweep.progress import Progress


class Shares:
    """A pool of which it is known how far it is."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.left = 0

    def share(self, running: Any) -> float:
        return float(running.share)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def under_way(share: float, began: float) -> SimpleNamespace:
    return SimpleNamespace(share=share, began=began)


@pytest.fixture
def line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> Callable[[Progress], str]:
    def drawn(progress: Progress) -> str:
        clock[0] += 10
        progress.look()
        return capsys.readouterr().err

    return drawn


def test_the_line_says_how_many_cells_and_how_long(clock: list[float], line: Callable[[Progress], str]) -> None:
    pool = Shares()
    progress = Progress("lr", cast(Pool, pool), 10, 2)
    pool.running, pool.left = [under_way(0.0, 1000.0), under_way(0.0, 1000.0)], 6
    assert line(progress) == "lr | 2/10 cells | 2 under way | wall 10.0 s\n"
    # 20 s for a quarter and for a half: 80 s and 40 s, of which 60 and 20 are left; six more take 60 s on average. All
    # of it is 440 s for two.
    pool.running = [under_way(0.25, 1000.0), under_way(0.5, 1000.0)]
    assert line(progress) == "lr | 2/10 cells | 2 under way | wall 3 min 40 s left\n"
    # One took 40 s. The other is at a half after 40 s; one that has just begun takes 60 s, as those two on average.
    pool.running, pool.left = [under_way(0.5, 995.0), under_way(0.0, 1035.0)], 0
    clock[0] = 1025.0
    progress.ended(Ended(cast(Any, None), 40.0, None))
    assert line(progress) == "lr | 3/10 cells | 2 under way | wall 1 min 00 s left\n"


def test_failures_are_in_it_and_do_not_tell_how_long_a_cell_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("lr", cast(Pool, Shares()), 3, 0)
    progress.ended(Ended(cast(Any, None), 1.0, "no"))
    progress.ended(Ended(cast(Any, None), 40.0, None))
    clock[0] += 90
    progress.close()
    assert capsys.readouterr().err == "lr | 1/3 cells | 1 failed | wall 1 min 30 s\n"
