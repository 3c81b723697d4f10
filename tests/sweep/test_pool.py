"""Processes side by side: as many as asked for, none idle, and whatever ends them is told."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from halos.errors import UserError
from halos.sweep import pool as pools
from halos.sweep.folder import Place, places
from halos.sweep.pool import Pool
from tests.sweep.small import cells, tiny


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever begins the tests in the background has Ctrl-C ignored, and all their processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Six places; their processes do what each test says, and import nothing."""
    monkeypatch.setattr(pools, "ALWAYS", ())
    found = places(cells(tiny(tmp_path), "seed=0..5", out=tmp_path), tmp_path)
    found[0].log.parent.mkdir()
    return found


def doing(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Let `what(seed, share)` be done in each process; SIGTERM ends it with the code of an interrupted run."""

    def work(place: Place, share: Any, told: Connection, alive: Connection, held: Connection) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(130))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        before = set(sys.modules)
        code = what(place.cell.config.seed, share)
        told.send(("error: data.path: y" if code == 3 else "", [name for name in sys.modules if name not in before]))
        sys.exit(code)

    monkeypatch.setattr(pools, "work", work)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_so_many_run_at_once_in_the_order_given(
    jobs: int, several: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def what(seed: int, share: Any) -> int:
        (tmp_path / f"begun-{seed}").touch()
        deadline = time.monotonic() + 10
        while seed < jobs - 1 and not (tmp_path / f"begun-{min(5, jobs - 1)}").exists():
            assert time.monotonic() < deadline, "the last of the first ones has not begun"
            time.sleep(0.01)
        time.sleep(0.1)
        return 0

    doing(monkeypatch, what)
    pool, most = Pool(several, jobs), 0
    for _ in pool.run():
        most = max(most, len(pool.running))
    assert (most <= jobs, pool.left, pool.running) == (True, 0, [])
    begun = [(tmp_path / f"begun-{seed}").stat().st_mtime_ns for seed in range(6)]
    assert jobs > 1 or begun == sorted(begun)


def test_the_next_one_begins_as_soon_as_one_ends(
    several: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def what(seed: int, share: Any) -> int:
        (tmp_path / f"begun-{seed}").touch()
        deadline = time.monotonic() + 30
        while seed == 0 and not (tmp_path / "begun-5").exists():  # in turns of two it would never come to that
            assert time.monotonic() < deadline, "nobody begins while the first one runs"
            time.sleep(0.01)
        return 0

    doing(monkeypatch, what)
    ended = [(each.place.cell.config.seed, each.problem) for each in Pool(several, 2).run()]
    assert ended.index((0, None)) >= 4 and sorted(ended) == [(seed, None) for seed in range(6)]


def test_whatever_ends_a_process_is_told_and_the_rest_goes_on(
    several: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def what(seed: int, share: Any) -> int:
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            faulthandler.disable()  # pytest's, which would tell the world
            os.kill(os.getpid(), signal.SIGSEGV)
        if seed == 4:
            os._exit(130)
        return seed if seed in (3, 5) else 0

    doing(monkeypatch, what)
    problems = {each.place.cell.config.seed: each.problem for each in Pool(several, 2).run()}
    assert problems == {
        0: None,
        1: "killed by SIGKILL (was memory short?)",
        2: "killed by SIGSEGV",
        3: "data.path: y",
        4: "interrupted",
        5: "exit code 5",
    }


def test_a_run_that_diverged_is_a_result(several: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    def what(seed: int, share: Any) -> int:
        several[seed].cell.folder.mkdir()
        finished = "diverged: training loss became nan: worker 0" if seed else "failed: nothing is left to happen"
        (several[seed].cell.folder / "summary.json").write_text(f'{{"finished": "{finished}"}}')
        return 1

    doing(monkeypatch, what)
    problems = {each.place.cell.config.seed: each.problem for each in Pool(several[:2], 2).run()}
    assert problems == {0: "exit code 1", 1: None}


def test_how_far_they_are_is_known_meanwhile(several: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    def what(seed: int, share: Any) -> None:
        share(seed / 8)
        time.sleep(0.5)

    doing(monkeypatch, what)
    pool, seen = Pool(several, 3), set()
    for _ in pool.run(lambda: seen.update((each.index, pool.share(each)) for each in pool.running)):
        pass
    assert {(index, index / 8) for index in range(6)} <= seen


def test_what_one_had_to_import_the_next_find_imported(
    several: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "takes_long_to_import.py").write_text(f"open({str(tmp_path / 'imports')!r}, 'a').write('x')")
    monkeypatch.syspath_prepend(tmp_path)
    doing(monkeypatch, lambda seed, share: __import__("takes_long_to_import") and 0)
    try:
        list(Pool(several, 1).run())
    finally:
        sys.modules.pop("takes_long_to_import", None)
    # The first one, and here; a second one, if that had begun before the first was heard.
    assert (tmp_path / "imports").read_text() in ("xx", "xxx")


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_all_of_them_and_a_second_one_at_once(
    times: int, several: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def what(seed: int, share: Any) -> None:
        if times == 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / f"pid-{seed}").write_text(str(os.getpid()))
        time.sleep(60)

    def interrupt() -> None:
        if not interrupted and len(list(tmp_path.glob("pid-*"))) == 2:
            interrupted.append(True)
            for number in reversed(range(times)):
                threading.Timer(0.5 * number, os.kill, [os.getpid(), signal.SIGINT]).start()

    doing(monkeypatch, what)
    interrupted: list[bool] = []
    pool = Pool(several, 2)
    with pytest.raises(KeyboardInterrupt):
        for _ in pool.run(interrupt):
            pass
    assert (pool.left, [each.process.exitcode for each in pool.running]) == (4, [130, 130] if times == 1 else [-9, -9])


def test_a_machine_that_has_no_room_for_more_processes_gets_along_with_fewer(
    several: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    doing(monkeypatch, lambda seed, share: time.sleep(0.1))
    pool = Pool(several, 4)
    begun, most = pool._begun, []

    def few(index: int, place: Place) -> Any:
        if len(pool.running) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        most.append(len(pool.running) + 1)
        return begun(index, place)

    monkeypatch.setattr(pool, "_begun", few)
    assert (len(list(pool.run())), max(most)) == (6, 2)

    def none(index: int, place: Place) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    pool = Pool(several, 4)
    monkeypatch.setattr(pool, "_begun", none)
    with pytest.raises(UserError, match=r"^no process can be started: Resource temporarily unavailable$"):
        list(pool.run())
