"""The charts of Custom Scalars: which curves are in which, by the names that runs give them."""

from __future__ import annotations

import re

from halos.observers.tensorboard.layout import charts

TAGS = (
    "loss/train",
    "loss by tokens/train",
    "loss over simulated time/train",
    "staleness/hop [versions]",
    "staleness/end to end, maximum [versions]",
    "parameter drift/hop [L2 distance]",
    "utilization/all workers [%]",
    "utilization/region us [%]",
    "utilization/worker 3 in us [%]",
    "utilization/busiest worker [%]",
    "traffic/us → eu [MB]",
    "traffic/pulls [MB]",
    "traffic/total [MB]",
)


def found(real: bool = True, links: bool = True) -> dict[str, list[str]]:
    """The curves of each chart, as TensorBoard finds them."""
    return {
        title: [tag for tag in TAGS if any(re.match(pattern, tag) for pattern in patterns)]
        for several in charts(real, links).values()
        for title, (_, patterns) in several.items()
    }


def test_every_curve_that_matters_is_in_one_chart() -> None:
    assert found() == {
        "by tokens trained on": ["loss by tokens/train"],
        "by simulated time (in ms: 60k is a minute, 3.6M an hour)": ["loss over simulated time/train"],
        "by local steps committed": ["loss/train"],
        "staleness, end to end (versions)": ["staleness/end to end, maximum [versions]"],
        "staleness, hop (versions)": ["staleness/hop [versions]"],
        "drift, end to end (L2 distance)": [],
        "drift, hop (L2 distance)": ["parameter drift/hop [L2 distance]"],
        "by region": ["utilization/all workers [%]", "utilization/region us [%]"],
        "by worker": ["utilization/worker 3 in us [%]", "utilization/busiest worker [%]"],
        "by link": ["traffic/us → eu [MB]"],
        "by kind": ["traffic/pulls [MB]", "traffic/total [MB]"],
    }


def test_no_chart_is_empty_for_good() -> None:
    assert [title for title in found(real=False) if "loss" in title or "drift" in title] == []
    assert "by link" not in found(links=False) and "by kind" in found(links=False)
    assert "Loss" not in charts(real=False, links=True)
