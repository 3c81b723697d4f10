"""Cores: those that this process may use, not those of the machine."""

from __future__ import annotations

import os

import pytest

from halos.training.cores import cores


def test_a_process_that_is_bound_to_three_cores_has_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 64
