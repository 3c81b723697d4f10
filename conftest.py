"""What holds for all tests, wherever they stand: in which order they begin, and what none waits for."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

# Some hundred tests start Python or load a plugin anew; none should compile what another one has.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first: in parallel, nobody waits at the end for the one who began such a test last."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@dataclass(frozen=True)
class Installed:
    """What is asked of an installed package that brings a plugin, read once."""

    name: str
    version: str
    entry_points: tuple[importlib.metadata.EntryPoint, ...]

    @property
    def metadata(self) -> dict[str, str]:
        return {"Name": self.name}


@pytest.fixture(autouse=True, scope="session")
def installed_plugins_are_looked_for_once() -> Iterator[None]:
    """Every run looks for them, which takes as long as the rest of a small one; in a process they stay the same."""
    everything = importlib.metadata.distributions
    first = list(sys.path)
    found = [
        Installed(each.metadata["Name"], each.version, entries)
        for each in everything()
        if (entries := tuple(entry for entry in each.entry_points if entry.group == "halos"))
    ]

    def once(**context: Any) -> Any:
        return everything(**context) if context or sys.path != first else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "distributions", once)
        yield


@pytest.fixture(autouse=True, scope="session")
def nothing_outlives_a_power_cut() -> Iterator[None]:
    """Files are not waited for until the disk has them: without a power cut, nobody can tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
