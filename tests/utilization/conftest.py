"""What tests of utilisation share."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = """
models: [{label: tiny, parameters: 8, layers: 1, step_time_seconds: 1.0}]
methods: [{label: each step, every: 1, bits: 1.0e9}]
bandwidth_gbps: {lowest: 1, highest: 100, points: 3}
targets_percent: [50, 99]
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return "small.yaml"
