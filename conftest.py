"""What holds for all tests, wherever they stand: in which order they begin, and what none waits for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Some hundred tests start Python or load a plugin anew; none should compile what another one has.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests begin first: in parallel, nobody waits at the end for the one who began such a test last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def nothing_outlives_a_power_cut() -> Iterator[None]:
    """Files are not waited for until the disk has them: without a power cut, nobody can tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
