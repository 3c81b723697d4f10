"""Pytest fixtures for tests of plugins: `pytest_plugins = ["halos.testing.fixtures"]` in a conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from halos import testing
from halos.sim.clock import Clock
from halos.testing.recording import Recording
from halos.testing.situations import QuadraticProblem


@pytest.fixture
def tiny_run() -> Callable[..., Recording]:
    """`tiny_run(**changes)`: the smallest run, with some sections changed."""
    return testing.tiny_run


@pytest.fixture
def clock() -> Clock:
    """Virtual time, at 0."""
    return Clock()


@pytest.fixture
def quadratic() -> QuadraticProblem:
    """A problem whose answer is known, in float64 and without noise."""
    return QuadraticProblem()
