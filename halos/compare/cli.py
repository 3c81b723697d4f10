"""The command `python -m halos.compare RUN …`: which of several groups of runs is better, by how much, and why."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

from halos.command import Parser, mistake
from halos.compare import markdown, page, tables, terminal, tidy
from halos.compare.amounts import amounts
from halos.compare.comparison import Comparison
from halos.compare.figures import gallery
from halos.compare.given import given
from halos.compare.groups import grouped
from halos.compare.prices import prices
from halos.compare.tables import Table
from halos.compare.targets import Target
from halos.config.paths import expanded
from halos.errors import UserError

TARGET = "+0"  # by default: what the baseline itself ends with


def path(text: str) -> Path:
    """An option's path."""
    if not text.strip():  # as of a variable that is not set
        raise ArgumentTypeError("'' is no path")
    return Path(expanded(text))


def parts(text: str) -> list[str]:
    """An option's texts, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def placed(text: str) -> tuple[Path, str]:
    """An option's path and the place in it; without one, `comparison`."""
    file, _, place = text.partition("#")
    return path(file), place or "comparison"


def parser() -> Parser:
    """The command line."""
    made = Parser(
        prog="python -m halos.compare",
        description="Compare runs: seeds taken together, differences taken seed by seed.",
        epilog="docs/compare.md has every number's definition.",
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="run folders, patterns, sweeps, or folders of these")
    made.add_argument("--by", type=parts, metavar="KEY,KEY", help="labels or keys of configurations that make groups")
    made.add_argument("--baseline", metavar="NAME", help="the group, or the value, to compare with; default: the first")
    made.add_argument(
        "--target-loss",
        type=parts,
        action="extend",
        metavar="X,+X",
        help="when is this loss reached, or one so much above the baseline's final one? default: +0",
    )
    made.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="tokens=A,B",
        help="losses at these; also steps=, seconds=, bytes=; 50%% is of what all runs reached",
    )
    made.add_argument("--prices", metavar="FILE|X", help="dollars per GB between regions, or a YAML file by pairs")
    made.add_argument(
        "--tables",
        type=parts,
        default=[],
        metavar="TOPIC,TOPIC",
        help="only these: losses, differences, targets, cost, work, staleness, front; MEASURE:KEY is one measure, the "
        "key's values side by side",
    )
    made.add_argument("--wall", action="store_true", help="also the real seconds that runs took")
    made.add_argument("--csv", type=path, metavar="FILE", help="all numbers, unrounded, a row per run and measure")
    made.add_argument(
        "--markdown", type=placed, metavar="FILE[#PLACE]", help="the tables, between <!-- tables PLACE --> and its end"
    )
    made.add_argument("--html", type=path, metavar="FILE", help="tables and figures as one page (needs matplotlib)")
    made.add_argument("--figures", type=path, metavar="DIR", help="each figure as a PNG (needs matplotlib)")
    return made


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    asked = parser().parse_args(arguments)
    try:
        targets = [Target.parse(text) for text in asked.target_loss or [TARGET]]
        priced = prices(asked.prices) if asked.prices is not None else None
        runs, unread = given(asked.runs)
        groups, doubled = grouped(runs, asked.by)
        comparison = Comparison.of(groups, asked.baseline, priced, asked.wall)
        at = amounts(comparison, asked.at)
        found = tables.tables(comparison, at, targets, asked.tables)
        remarks = [*unread, *doubled, *comparison.remarks]
        if asked.html or asked.figures:
            draw(asked.html, asked.figures, comparison, [*found, *tables.remarks(remarks)], targets)
        if asked.markdown:
            markdown.write(asked.markdown[0], [*found, *tables.remarks(remarks)], asked.markdown[1])
        if asked.csv:
            tidy.write(asked.csv, comparison, at, targets)
        terminal.show(title(comparison), found, remarks)
    except UserError as error:
        return mistake(error)
    return 0


def draw(
    html: Optional[Path],
    folder: Optional[Path],
    comparison: Comparison,
    found: Sequence[Table],
    targets: Sequence[Target],
) -> None:
    """Write the page, the figures, or both: of the runs whose losses can be compared, or that have none."""
    groups = comparison.drawn
    against = {label: baseline.label for label, baseline in comparison.against.items()}
    loss = next((target.loss for target in targets if not target.above), None)
    if folder:
        gallery.save(folder, groups, against, loss)
    if html:
        page.write(html, title(comparison), found, groups, against, loss)


def title(comparison: Comparison) -> str:
    """What is compared, in a line."""
    count = sum(len(group.runs) for group in comparison.groups)
    seeds = sorted({seed for group in comparison.groups for seed in group.runs})
    said = ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")
    shared = comparison.shared_baseline
    baseline = f"; baseline: {shared.label if shared else comparison.called}" if len(comparison.groups) > 1 else ""
    groups = f"{len(comparison.groups)} group{'s' * (len(comparison.groups) != 1)}"
    return f"{count} run{'s' * (count != 1)} in {groups}, seed{'s' * (len(seeds) != 1)} {said}{baseline}"


def command() -> NoReturn:
    """`python -m halos.compare`: the process ends with the exit code."""
    sys.exit(main())
