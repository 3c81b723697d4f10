"""The closing table: what a run came to, printed when it is over, and where to look next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halos.observers.trace.observer import cut_at
from halos.observers.units import duration, size
from halos.values.records import Summary

REGIONS = 12  # rows, before the rest becomes one; and rows of losses of other models than the global one
NAME = 20  # characters of a region's name, at most
SHORTEST, LONGEST = 10, 40  # characters of a bar
LABEL = 24  # characters of a row's name
REPORT = 200  # characters of a policy's own report
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
        console.print(_regions(summary["workers"], regions, console.width))
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
    links = summary.get("bytes") or {}
    sent = size(sum(links.values()))
    if len(links) > 1:
        busiest = max(links, key=lambda link: links[link])
        sent += f" over {len(links)} links, most over {busiest}: {size(links[busiest])}"
    commits = f"{summary.get('commits', 0):,} of the global model, from {summary.get('updates', 0):,} updates"
    parameters, goodput = summary.get("parameters"), summary.get("goodput")
    rows = (
        ("simulated time", duration(summary.get("simulated_seconds"))),
        ("wall time", duration(summary.get("wall_seconds"))),
        ("parameters", None if parameters is None else f"{parameters:,}"),
        ("local steps", _steps(summary)),
        ("skipped steps", _skipped(summary)),
        ("tokens", f"{summary.get('tokens', 0):,}"),
        *_losses(summary),
        ("commits", commits),
        ("staleness", _ways(summary.get("staleness"), " versions")),
        ("drift", _ways(summary.get("drift"))),
        ("bytes sent", sent),
        ("busiest link", _busiest(summary.get("links") or {})),
        ("goodput", None if goodput is None else f"{goodput:.1%} of the workers' time computed what was committed"),
        ("lost", _lost(summary)),
        ("policy", _said(summary.get("policy_report"))),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", overflow="fold", max_width=LABEL)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(Text(name), Text(value))
    return table


def _busiest(links: dict[str, dict[str, Optional[float]]]) -> Optional[str]:
    """Return in words which of the links that are shared was used most; None if there are none with a limit."""
    used = {name: link["utilisation"] for name, link in links.items() if link["utilisation"] is not None}
    if not used:
        return None
    name = max(used, key=lambda name: used[name])
    return f"{name}, {used[name]:.1%} of what it could have carried"


def _skipped(summary: Summary) -> Optional[str]:
    """Return in words how many local steps fp16's loss scaling left out; None in another precision."""
    skipped = summary.get("skipped_steps")
    return None if skipped is None else f"{skipped:,}, by fp16's loss scaling"


def _steps(summary: Summary) -> str:
    """Where the local steps went; nothing of what never happened."""
    steps = summary.get("steps")
    if not steps:
        return f"{summary.get('local_steps', 0):,} committed"
    happened = [key for key, count in steps.items() if count or key in ("trained", "committed")]
    return ", ".join(f"{steps[key]:,} {key.replace('_', ' ')}" for key in happened)


def _losses(summary: Summary) -> Iterator[tuple[str, Optional[str]]]:
    """Yield the last training loss, and those of the global model (and others) on every evaluation set; if trained."""
    train = summary.get("final_train_loss")
    yield "train loss", None if train is None else f"{train:.4f}"
    losses = {"validation": summary.get("final_validation_loss"), **(summary.get("final_losses") or {})}
    metrics = summary.get("final_metrics") or {}
    for name in dict.fromkeys((*losses, *metrics)):
        loss = losses.get(name)
        known = {metric: value for metric, value in (metrics.get(name) or {}).items() if value is not None}
        shown = (None if loss is None else f"{loss:.4f}", _said(known))
        yield f"{name} loss", "; ".join(text for text in shown if text)
    for of, theirs in islice((summary.get("final_losses_of") or {}).items(), REGIONS):
        yield f"loss of {of}", ", ".join(f"{name} {loss:.4f}" for name, loss in theirs.items() if loss is not None)


def _ways(spreads: Optional[dict[str, Any]], unit: str = "") -> str:
    """`hop mean 2.7, max 5; end to end mean 3.1, max 9 versions`; what is not known is left out."""
    known = [
        f"{way.replace('_', ' ')} mean {_number(spread['mean'])}, max {_number(spread['max'])}"
        for way, spread in (spreads or {}).items()
        if spread.get("mean") is not None
    ]
    return "; ".join(known) + unit if known else "not known"


def _said(report: Any) -> Optional[str]:
    """A policy's own numbers in one line, cut if they are many; None if there are none."""
    if report is None or report == {}:
        return None
    entries = report.items() if isinstance(report, dict) else [("", report)]
    text = ", ".join(f"{str(name).replace('_', ' ')} {_number(value)}".strip() for name, value in entries)
    return text if len(text) <= REPORT else f"{text[:REPORT]}... (all of it in summary.json)"


def _number(value: Any) -> str:
    """A number as people read it; anything else as it is."""
    if value is None:
        return "-"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _lost(summary: Summary) -> Optional[str]:
    """Return in words how many jobs and messages faults have taken; None if there were no faults."""
    lost = summary.get("lost") or {}
    if not _down(summary.get("workers") or []) and not any(lost.values()):
        return None
    return f"{lost.get('jobs', 0):,} jobs, {lost.get('messages', 0):,} messages"


def _down(workers: list[dict[str, Any]]) -> bool:
    """Whether any worker was ever down."""
    return any(worker.get("down") for worker in workers)


def _regions(workers: list[dict[str, Any]], names: Sequence[str], width: int) -> Table:
    """Mean shares of simulated time: a row per region, the rest in one if there are many.

    The heads of the shares' columns have the marks that stand for them in the bars.
    """
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
    heads = ["workers", *(f"{mark} {name}" for name, mark, _ in shown)]
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column("of time", no_wrap=True)
    left = width - sum(len(head) + 2 for head in heads) - 4  # for names and bars
    longest = min(max(len(name) for name, _ in groups), max(len("region"), min(NAME, left - SHORTEST)))
    bar = max(SHORTEST, min(LONGEST, left - max(len("region"), longest)))
    for name, members in groups:
        name = name if len(name) <= longest else name[: longest - 2] + ".."
        shares = {key: sum(worker.get(key, 0.0) for worker in members) / len(members) for key, _, _ in BAR}
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


def _pointers(folder: Path) -> list[tuple[str, str]]:
    """Return (name, place or command) of what there is to look at in `folder`."""
    found = [("run folder", str(folder))]
    if any(folder.glob("events.out.tfevents*")):
        found.append(("curves", f"tensorboard --logdir {folder}"))
    if (folder / "trace.json").exists():
        found.append(("timeline", f"{folder / 'trace.json'} (open it at https://ui.perfetto.dev)"))
        if (cut := cut_at(folder / "trace.json")) is not None:
            found.append(("", f"holds the first {duration(cut)} of simulated time: all of it would be too large"))
    evaluations = folder / "evaluations.jsonl"
    if evaluations.exists() and evaluations.stat().st_size:
        found.append(("losses", str(evaluations)))
    return found
