"""Large vectors: their pages go back to the system, and small ones stay where they are."""

from __future__ import annotations

import sys

import pytest
import torch

from halos.training.pages import LARGE, give_back


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
