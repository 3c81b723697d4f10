"""Tokenised text that is kept between runs."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from halos.data import cache

ARRAYS = [np.arange(9, dtype=np.uint16), np.array([4, 5]), np.array([], np.int64)]
KEY = "a" * 64


def same(found: object) -> bool:
    assert isinstance(found, list)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, ARRAYS, strict=True))


def test_what_is_kept_is_found_again_mapped(tmp_path: Path) -> None:
    assert cache.load(tmp_path, KEY, 3) is None
    cache.keep(tmp_path / "made", KEY, ARRAYS)
    found = cache.load(tmp_path / "made", KEY, 3)
    assert same(found)
    assert isinstance(found[0].base, np.memmap)
    assert [path.name for path in (tmp_path / "made").iterdir()] == [f"{KEY}.tokens"]


def test_it_is_kept_where_such_things_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder(None) == Path("/home/of/.cache/halos")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.folder(None) == Path("/elsewhere/halos")
    assert cache.folder(Path("/here")) == Path("/here")


def test_any_damage_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep(tmp_path, KEY, ARRAYS)
    path = tmp_path / f"{KEY}.tokens"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.load(tmp_path, KEY, 3) is None
        path.write_bytes(whole[:place])
        assert cache.load(tmp_path, KEY, 3) is None
    assert set(caplog.messages) == {f"{path} is damaged; the text is tokenised again"}
    path.write_bytes(whole)
    assert same(cache.load(tmp_path, KEY, 3))


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from halos.data import cache
arrays = [np.arange(9, dtype=np.uint16), np.array([4, 5]), np.array([], np.int64)]
write = np.lib.format.write_array
def slowly(stream, array, **options):
    write(stream, array, **options)
    stream.flush()
    print("written", flush=True)
    time.sleep(float(sys.argv[3]))
np.lib.format.write_array = slowly
cache.keep(Path(sys.argv[1]), sys.argv[2], arrays)
"""


def writer(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", WRITER, str(folder), KEY, str(seconds)]
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert started.stdout is not None and started.stdout.readline() == "written\n"
    return started


def test_of_a_writer_that_is_killed_nothing_is_seen_and_later_nothing_is_left(tmp_path: Path) -> None:
    killed = writer(tmp_path, 60)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (left,) = tmp_path.iterdir()
    assert cache.load(tmp_path, KEY, 3) is None
    cache.keep(tmp_path, KEY, ARRAYS)
    assert left.exists(), "it might be that of somebody who is still writing"
    os.utime(left, (time.time() - 7200,) * 2)
    cache.keep(tmp_path, "b", ARRAYS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{KEY}.tokens", "b.tokens"]


def test_two_may_write_the_same_at_once(tmp_path: Path) -> None:
    both = [writer(tmp_path, 0.05) for _ in range(2)]
    for each in both:
        each.communicate()
    assert [each.returncode for each in both] == [0, 0]
    assert same(cache.load(tmp_path, KEY, 3))
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nothing_can_be_kept_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").touch()
    cache.keep(tmp_path / "file", KEY, ARRAYS)
    cache.keep(Path("/proc/halos"), KEY, ARRAYS)
    assert caplog.messages == [
        f"the tokenised text cannot be kept in {tmp_path}/file: File exists; the next run tokenises again",
        "the tokenised text cannot be kept in /proc/halos: No such file or directory; the next run tokenises again",
    ]
    assert cache.load(Path("/proc/halos"), KEY, 3) is None


def test_a_folder_that_may_not_be_written_to_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep(tmp_path, KEY, ARRAYS)
    tmp_path.chmod(0o555)
    try:
        assert same(cache.load(tmp_path, KEY, 3))
    finally:
        tmp_path.chmod(0o755)
    assert caplog.messages == []


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache.keep(tmp_path, KEY, ARRAYS)
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []
