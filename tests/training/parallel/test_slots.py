"""Slots: vectors that a forked process sees, and places that are used again once nobody looks at them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from halos.errors import UserError
from halos.training.pages import LARGE
from halos.training.parallel import slots as module
from halos.training.parallel.slots import FIRST, Slots

HERE = Path(__file__).parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
LITTLE = """
import os, tempfile
from halos.errors import UserError
from halos.training.parallel import slots as module
import torch

file = tempfile.TemporaryFile(dir={folder!r})
module._nameless = lambda: os.dup(file.fileno())
slots = module.Slots(1 << 18, torch.float32)  # each of 1 MiB
held = []
try:
    while len(held) < 100:
        held.append(slots.new())
        held[-1].vector.fill_(1.0)
except UserError as error:
    print(len(held), error)
held.pop()
held.append(slots.new())
print(len(held))
"""


def test_what_one_process_writes_another_reads_in_slots_made_before_and_after_it_was_forked() -> None:
    slots = Slots(3, torch.float32)
    before = slots.new()
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        numbers = os.read(asked, 2)
        for number in numbers:
            slots.at(number).mul_(2.0)
        os.write(answer, b"!")
        os._exit(0)
    several = [slots.new() for _ in range(3 * FIRST)]  # the file has grown twice since
    for slot in (before, several[-1]):
        slot.vector.copy_(torch.tensor([1.0, 2.0, 3.0]) + slot.number)
    os.write(ask, bytes([before.number, several[-1].number]))
    os.read(answered, 1)
    os.waitpid(child, 0)
    for slot in (before, several[-1]):
        assert slot.vector.tolist() == [2.0 * (number + slot.number) for number in (1.0, 2.0, 3.0)]


def test_a_slot_is_free_when_the_last_tensor_in_it_is_gone() -> None:
    slots = Slots(4, torch.float32)
    slot, other = slots.new(), slots.new()
    assert (slot.number, other.number) == (0, 1)
    part = slot.vector[2:].view(2)
    del slot
    gc.collect()
    assert slots.new().number == 2  # a part of it is still looked at
    del part
    gc.collect()
    assert slots.new().number == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_slot_is_found_by_the_vector_or_its_beginning(dtype: torch.dtype) -> None:
    slots = Slots(5000, dtype)  # more than a page, and no multiple of it
    several = [slots.new() for _ in range(4)]
    assert [slot.vector.dtype for slot in several] == [dtype] * 4
    for value, slot in enumerate(several):
        slot.vector.fill_(value)
    for value, slot in enumerate(several):
        assert slot.vector.eq(value).all() and len(slot.vector) == 5000
        assert slots.holding(slot.vector) == slots.holding(slot.vector[:10]) == slot.number
        assert slots.holding(slot.vector[10:]) is None
    assert slots.holding(torch.zeros(5000)) is None


def pages(slots: Slots) -> int:
    """Bytes that the file takes."""
    return os.fstat(slots._file).st_blocks * 512


@LINUX
def test_a_slot_takes_memory_when_it_is_made_and_a_large_one_until_it_is_free() -> None:
    slots = Slots(LARGE // 4, torch.float32)
    assert slots.large and pages(slots) == 0
    several = [slots.new() for _ in range(3)]
    assert pages(slots) == 3 * LARGE  # and not of the 13 others of the segment
    several[0].vector.fill_(1.0)
    several[2].vector.fill_(3.0)
    del several[0]
    gc.collect()
    assert pages(slots) == 2 * LARGE and several[1].vector.eq(3.0).all()
    again = slots.new()
    assert again.number == 0 and pages(slots) == 3 * LARGE


@LINUX
def test_the_memory_of_a_small_one_is_kept_for_the_next() -> None:
    slots = Slots(1024, torch.float32)
    slot = slots.new()
    del slot
    gc.collect()
    assert not slots.large and pages(slots) == 4096


@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_where_shared_memory_ends_is_an_error_and_no_signal(tmp_path: Path) -> None:
    """A file system of 5 MiB, seen by one process alone: five slots of one MiB each, and no sixth."""
    program = LITTLE.format(folder=str(tmp_path))
    mounted = f"mount -t tmpfs -o size=5m none {tmp_path} && exec {sys.executable} -"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted], input=program, capture_output=True, text=True, cwd=HERE.parents[2]
    )
    assert done.returncode == 0, done.stderr
    said, after = done.stdout.splitlines()
    assert said.startswith("5 executor: parallel needs 1.0 MiB of shared memory for one vector more, beside 5 of that")
    assert "No space left on device" in said
    assert after == "5"  # one that is free again may be had


@LINUX
def test_so_it_is_where_the_system_has_no_pages_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of huge pages a system has none, unless it was told to."""
    if "HugePages_Total:       0" not in Path("/proc/meminfo").read_text():
        pytest.skip("there are huge pages")
    monkeypatch.setattr(module, "_nameless", lambda: os.memfd_create("halos", os.MFD_HUGETLB))
    monkeypatch.setattr(module, "PAGE", 1 << 21)
    with pytest.raises(UserError, match=r"needs 2\.0 MiB .* beside 0 of that size, .*No space left on device"):
        Slots(8, torch.float32).new()


def test_vectors_outlive_the_slots() -> None:
    slots = Slots(2, torch.float32)
    vector = slots.new().vector.fill_(7.0)
    slots.close()
    slots.close()
    del slots
    gc.collect()
    assert vector.tolist() == [7.0, 7.0]
