"""The closing table: what a run came to, printed when it is over, and where to look next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halos.observers.units import duration, size
from halos.values.records import Summary

REGIONS = 12  # rows, before the rest becomes one
BAR = (("compute", "#", "green"), ("transfer", "=", "yellow"), ("idle", ".", "dim"), ("down", "x", "red"))


def show(summary: Summary, folder: Path, regions: Sequence[str] = (), console: Optional[Console] = None) -> None:
    """Print the closing table of the run in `folder`; `regions` are their names, if known."""
    console = console or Console(highlight=False, markup=False, emoji=False)  # names mean their brackets
    console.print()
    console.print(_headline(summary))
    console.print()
    console.print(_facts(summary))
    if summary.get("workers"):
        console.print()
        console.print(_regions(summary["workers"], regions, bar=max(12, min(40, console.width - 60))))
    console.print()
    for what, where in _pointers(folder):
        # Not wrapped, so that a command can be copied whole.
        console.print(Text(f"{what:<12}", "dim"), Text(where), sep="", soft_wrap=True)


def _headline(summary: Summary) -> Text:
    finished = summary.get("finished")
    state, style = ("finished", "green") if finished is True else (str(finished), "red")
    return Text.assemble(
        (str(summary.get("name", "")), "bold"), "  ", str(summary.get("policy", "")), "  ", (state, style)
    )


def _facts(summary: Summary) -> Table:
    steps = summary.get("steps") or {}
    shares = ", ".join(
        f"{steps[key]:,} {text}"
        for key, text in (
            ("trained", "trained"), ("committed", "committed"), ("dropped", "dropped"), ("in_flight", "in flight"),
            ("lost", "lost"),
        )
        if key in steps and (key != "lost" or steps[key])
    )  # fmt: skip
    links = summary.get("bytes") or {}
    total = sum(links.values())
    sent = size(total)
    if links and len(links) > 1:
        busiest = max(links, key=lambda link: links[link])
        sent += f" over {len(links)} links, most over {busiest}: {size(links[busiest])}"
    staleness = (summary.get("staleness") or {}).get("end_to_end") or {}
    stale = f"mean {staleness['mean']:.2f}, at most {staleness['max']}" if staleness.get("mean") is not None else "-"
    commits = f"{summary.get('commits', 0):,} of the global model, from {summary.get('updates', 0):,} updates"
    rows = (
        ("simulated time", duration(summary.get("simulated_seconds"))),
        ("wall time", duration(summary.get("wall_seconds"))),
        ("local steps", shares or f"{summary.get('local_steps', 0):,} committed"),
        ("tokens", f"{summary.get('tokens', 0):,}"),
        ("train loss", _loss(summary.get("final_train_loss"))),
        ("validation loss", _loss(summary.get("final_validation_loss"))),
        ("commits", commits),
        ("staleness", stale),
        ("bytes sent", sent),
        ("lost", _lost(summary)),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None and not (name.endswith("loss") and value == "-"):  # timing runs have no losses
            table.add_row(name, Text(value))
    return table


def _lost(summary: Summary) -> Optional[str]:
    """Return in words how many jobs and messages faults have taken, and the goodput; None if there were no faults."""
    lost, goodput = summary.get("lost") or {}, summary.get("goodput")
    if not _down(summary.get("workers") or []) and not any(lost.values()):
        return None
    counts = f"{lost.get('jobs', 0):,} jobs, {lost.get('messages', 0):,} messages"
    return counts if goodput is None else f"{counts}; goodput {goodput:.1%}"


def _down(workers: list[dict[str, Any]]) -> bool:
    """Whether any worker was ever down."""
    return any(worker.get("down") for worker in workers)


def _regions(workers: list[dict[str, Any]], names: Sequence[str], bar: int) -> Table:
    """Mean shares of simulated time: a row per region, the rest in one if there are many."""
    by_region: dict[int, list[dict[str, Any]]] = {}
    for worker in workers:
        by_region.setdefault(worker["region"], []).append(worker)
    groups = [
        (names[index] if index < len(names) else f"region {index}", members) for index, members in by_region.items()
    ]
    if len(groups) > REGIONS:
        rest = [worker for _, members in groups[REGIONS - 1 :] for worker in members]
        groups = [*groups[: REGIONS - 1], (f"{len(groups) - REGIONS + 1} more regions", rest)]
    if len(groups) > 1:
        groups.append(("all", workers))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("region", no_wrap=True)
    shown = BAR if _down(workers) else BAR[:-1]
    for name in ("workers", *(name for name, _, _ in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("of simulated time", no_wrap=True)
    for name, members in groups:
        shares = {key: sum(worker.get(key, 0.0) for worker in members) / len(members) for key, _, _ in BAR}
        name = name if len(name) <= 20 else name[:18] + ".."
        table.add_row(
            Text(name), f"{len(members):,}", *(f"{shares[key]:.1%}" for key, _, _ in shown), _bar(shares, bar)
        )
    return table


def _bar(shares: dict[str, float], width: int) -> Text:
    """`####==....`, the shares as one line of `width` characters."""
    text, upto, drawn = Text(), 0.0, 0
    for key, mark, style in BAR:
        upto += shares[key]
        end = width if key == BAR[-1][0] else min(width, round(upto * width))
        text.append(mark * (end - drawn), style)
        drawn = end
    return text


def _loss(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.4f}"


def _pointers(folder: Path) -> list[tuple[str, str]]:
    """Return (name, place or command) of what there is to look at in `folder`."""
    found = [("run folder", str(folder))]
    if any(folder.glob("events.out.tfevents*")):
        found.append(("curves", f"tensorboard --logdir {folder}"))
    if (folder / "trace.json").exists():
        found.append(("timeline", f"{folder / 'trace.json'} (open it at https://ui.perfetto.dev)"))
    evaluations = folder / "evaluations.jsonl"
    if evaluations.exists() and evaluations.stat().st_size:
        found.append(("losses", str(evaluations)))
    return found
