"""Where timelines draw rectangles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos.compare.timeline_figures import STATES, timelines
from tests.compare.drawn import axes
from tests.compare.made_groups import FALLING, group, update

pytest.importorskip("matplotlib")


def rectangles(found: Any, what: str) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of what is drawn in a state's colour; rows count downwards."""
    from matplotlib.colors import to_hex

    (patch,) = [patch for patch in found.patches if to_hex(patch.get_facecolor()) == STATES[what]]
    corners = patch.get_path().vertices.reshape(-1, 5, 2)
    return [
        (float(x.min()), float(x.max()), round(float(y.min()), 6), round(float(y.max()), 6))
        for x, y in ((each[:, 0], each[:, 1]) for each in corners)
    ]


def test_a_worker_is_a_row_and_below_them_a_link(tmp_path: Path) -> None:
    """Worker 0 computes from 0 to 3, worker 1 from 4 to 7; the link carries from 0 to 3.5, then to 7.5, cut at 5."""
    (figure,) = timelines([group(tmp_path, "a & b", FALLING)])
    assert (figure.name, figure.title) == ("timeline-1", "Timeline: a & b")
    assert "a & b, seed 1: the first 5 s" in figure.caption  # the median of 3 and 7
    found = axes(figure, 0)
    assert rectangles(found, "compute") == [(0, 3, 0.18, 1), (4, 5, 1.18, 2)]
    assert rectangles(found, "transfer") == [(0, 5, 3.18, 4)]
    assert [text.get_text() for text in found.get_yticklabels()] == ["us · 0", "eu · 1", "us → eu"]
    assert [style.label for style in figure.styles] == ["compute", "transfer"]


def test_all_groups_are_drawn_over_the_same_time(tmp_path: Path) -> None:
    slow = group(tmp_path, "slow", FALLING, updates=[update(1, 2.0, time=20.0)])
    fast, slow_too = timelines([group(tmp_path, "fast", FALLING), slow])
    assert [axes(each, 0).get_xlim() for each in (fast, slow_too)] == [(0, 20), (0, 20)]
    assert "Grey: after the end of the run" in fast.caption  # of 8 s
    assert [patch.get_x() for patch in axes(fast, 0).patches if hasattr(patch, "get_x")] == [8]


def test_the_run_drawn_is_the_first_seed_that_recorded_updates(tmp_path: Path) -> None:
    first, second = group(tmp_path, "x", FALLING, updates=[]), group(tmp_path, "x", FALLING)
    first.runs[7] = second.runs[1]
    (figure,) = timelines([first])
    assert "x, seed 7" in figure.caption
    assert timelines([group(tmp_path, "none", FALLING, updates=[])]) == [] and timelines([]) == []


def test_shares_lie_on_top_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a region's two workers one computes and the other is on a link: half of the row each."""
    monkeypatch.setattr("halos.compare.timelines.ROWS", 1)
    pull = {"start_time": 0.0, "time": 4.0, "src": 0, "dst": 0, "bytes": 1, "kind": "pull", "worker": 1, "server": 0}
    one = group(
        tmp_path,
        "x",
        FALLING,
        config={"cluster": {"regions": [{"name": "us", "workers": [1.0, 1.0]}]}},
        updates=[update(1, 1.0, time=4.0, worker=0), update(2, 1.0, time=4.0, worker=1, server=0)],
    )
    import json

    (one.runs[1].folder / "transfers.jsonl").write_text(json.dumps(pull) + "\n")
    found = axes(timelines([one])[0], 0)
    assert rectangles(found, "compute") == [(0, 4, 0.59, 1)]
    assert rectangles(found, "transfer")[0] == (0, 4, 0.18, 0.59)
    assert np.isclose(0.59 - 0.18, 1 - 0.59)
