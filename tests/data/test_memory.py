"""Free memory, as this machine and its container say it."""

from __future__ import annotations

from typing import Optional

import pytest

from halos.data import memory
from halos.errors import ConfigError


@pytest.mark.parametrize(
    ("free", "limit", "expected"), [(8, None, 8), (8, 2, 2), (2, 8, 2), (None, 8, 8), (None, None, None)]
)
def test_the_smaller_of_what_is_known_is_available(
    free: Optional[int], limit: Optional[int], expected: Optional[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_free", lambda: free)
    monkeypatch.setattr(memory, "_container_limit", lambda: limit)
    assert memory.available() == expected


def test_what_needs_more_than_is_free_is_refused_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 512 * 2**20)
    memory.check("samples", "the corpus", 512 * 2**20)  # just fits
    with pytest.raises(ConfigError) as refused:
        memory.check("samples", "the corpus", 3 * 2**29)
    assert str(refused.value) == "samples: the corpus takes 1.5 GiB of memory, 512.0 MiB are free"


def test_where_nothing_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.check("samples", "the corpus", 2**60)
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(ConfigError):
        memory.check("samples", "the corpus", 1)
