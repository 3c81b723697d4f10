"""Large vectors: their pages go back to the system, and small ones stay where they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from halos.training.pages import LARGE, give_back

HOLES = """
import torch
from halos.training.pages import LARGE, own_pages

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def made():
    return torch.ones(2 * LARGE // 4)

first = made()
if {told}:
    own_pages(first)
del first  # one that is freed is what the C library learns from
before, several = resident(), [made() for _ in range(32)]
del several[:-1]  # the last one lies behind all the others
print((resident() - before) / LARGE)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize(("told", "least", "most"), [(False, 20.0, 65.0), (True, 1.9, 3.0)])
def test_where_vectors_were_there_is_no_hole_that_keeps_their_memory(told: bool, least: float, most: float) -> None:
    """Of 32 vectors of 8 MiB one is left, the last: 2 times 4 MiB, and not all that lie before it."""
    said = subprocess.run(
        [sys.executable, "-c", HOLES.format(told=told)], check=True, capture_output=True, text=True
    ).stdout
    assert least <= float(said) <= most


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_what_is_given_back_is_zero_and_may_be_written_and_what_lies_beside_it_stays() -> None:
    whole = torch.ones(2 * LARGE // 4 + 2000)
    middle = whole[1000:-1000]  # not at the beginning of a page
    give_back(middle)
    assert whole[:1000].eq(1.0).all() and whole[-1000:].eq(1.0).all()
    assert middle[1024:-1024].eq(0.0).all()  # but for what shares a page with others
    assert middle.fill_(3.0).eq(3.0).all()


def test_a_small_one_is_left_as_it_is() -> None:
    small = torch.ones(LARGE // 4 - 1)
    give_back(small)
    assert small.eq(1.0).all()
