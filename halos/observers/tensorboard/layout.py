"""The Custom Scalars tab: the charts that answer what one asks of a run first, each of several curves.

Curves are named by patterns, so the charts are the same for every run, and runs side by side share them.
"""

from __future__ import annotations

# By heading: (title, the beginnings of the curves' names, as regular expressions).
CHARTS = {
    "Loss": (
        ("by tokens trained on", "loss by tokens/"),
        ("by simulated time (in ms: 60k is a minute, 3.6M an hour)", "loss over simulated time/"),
        ("by local steps committed", "loss/"),
    ),
    "Staleness and drift of what the global server merges": (
        ("staleness, end to end (versions)", "staleness/end to end"),
        ("staleness, hop (versions)", "staleness/hop"),
        ("drift, end to end (L2 distance)", "parameter drift/end to end"),
        ("drift, hop (L2 distance)", "parameter drift/hop"),
    ),
    "Utilization: time spent computing, in % of all so far": (
        ("by region", "utilization/(all|region)"),
        ("by worker", "utilization/(worker|busiest|least)"),
    ),
    "Traffic so far (MB)": (
        ("by link", "traffic/.* → "),
        ("by kind", "traffic/(?!.* → )"),
    ),
}
TRAINED = ("loss", "parameter drift")  # groups of curves that only a run that trains has


def charts(real: bool, links: bool) -> dict[str, dict[str, list[object]]]:
    """Return the charts that have curves, as TensorBoard's writer takes them; of `links`, if these have curves."""
    return {
        heading: {
            title: ["Multiline", [curves]]
            for title, curves in several
            if (real or not curves.startswith(TRAINED)) and (links or title != "by link")
        }
        for heading, several in CHARTS.items()
        if real or heading != "Loss"
    }
