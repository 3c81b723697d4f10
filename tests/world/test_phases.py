"""Phases: how long a transfer or a collective takes that has all of its links to itself."""

from __future__ import annotations

import math

import pytest

from halos import Phase, lone_seconds
from halos.world.fair import Link
from halos.world.phases import bits_until


def steady(link: Link, time: float) -> tuple[float, float]:
    return {"fast": 16.0, "slow": 8.0, "endless": math.inf, "dead": 0.0}[str(link)], math.inf


def stepped(link: Link, time: float) -> tuple[float, float]:
    """8 bit/s, nothing from 2 s on, and 32 bit/s from 5 s on."""
    return next((rate, until) for rate, until in ((8.0, 2.0), (0.0, 5.0), (32.0, math.inf)) if time < until)


def test_the_narrowest_link_and_then_the_latency() -> None:
    assert lone_seconds([Phase({"fast": 10.0, "slow": 10.0}, 0.5)], steady, 7.0) == 10.5


def test_a_phase_takes_as_long_as_the_link_with_most_to_do() -> None:
    assert lone_seconds([Phase({"fast": 60.0, "slow": 20.0})], steady, 0.0) == 30.0  # 480 bits by 16, 160 by 8


def test_phases_one_after_the_other() -> None:
    assert lone_seconds([Phase({"slow": 3.0}, 1.0), Phase({"fast": 8.0}, 0.25)], steady, 0.0) == 3.0 + 1.0 + 4.0 + 0.25


def test_a_link_that_carries_nothing_for_a_while() -> None:
    # 10 bytes are 80 bits: 16 by 2 s, none until 5 s, the other 64 by 7 s.
    assert lone_seconds([Phase({"x": 10.0})], stepped, 0.0) == 7.0
    assert lone_seconds([Phase({"x": 10.0})], stepped, 1.0) == pytest.approx(1.0 + 3.0 + 72 / 32)
    assert lone_seconds([Phase({"x": 2.0})], stepped, 0.0) == 2.0  # by the very moment


def test_nothing_to_carry_and_nothing_in_the_way_take_no_time() -> None:
    assert lone_seconds([Phase({"slow": 0.0}), Phase({}), Phase({"endless": 1e9})], steady, 3.0) == 0.0


def test_a_link_that_never_carries_anything_takes_for_ever() -> None:
    assert lone_seconds([Phase({"dead": 1.0})], steady, 0.0) == math.inf


def test_what_a_link_could_have_carried() -> None:
    assert [bits_until("x", stepped, end) for end in (0.0, 1.0, 4.0, 6.0)] == [0.0, 8.0, 16.0, 48.0]
