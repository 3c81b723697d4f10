"""`python -m benchmarks.quality`: run what has no result yet, then write docs/results.md's tables and figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.quality import plot, tables
from benchmarks.quality.runs import ROOT, Results, execute
from benchmarks.quality.study import MARGINS, METHODS, PARTS, runs

MAIN, PAIR, PLAIN, TUNING = PARTS


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=[MAIN.name], help=f"default: {MAIN.name}")
    parser.add_argument("--methods", nargs="+", choices=[each.name for each in METHODS], help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: all of the study's")
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/quality", help="where run folders go")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where results.md and results/ are")
    options = parser.parse_args(arguments)
    results = Results(options.docs / "results/quality.json")
    failures: list[str] = []
    if not options.report_only:
        parts = [part for part in PARTS if part.name in options.parts]
        todo = [run for part in parts for run in runs(part, options.methods, options.seeds)]
        failures = execute(todo, results, options.folder.resolve(), options.at_once)
    report(results.runs, options.docs)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def report(raw: tables.Raw, docs: Path) -> None:
    """Tables between their markers in results.md, and the figure if matplotlib is there; of what is recorded."""
    made = {"tuning": tables.tuning(TUNING, raw), "no momentum": tables.tuning(PLAIN, raw)}
    if tables.curves(MAIN, raw):
        made["tokens"] = tables.equal_tokens(MAIN, raw)
        made["time"] = tables.equal_time(MAIN, raw, at=("async_local_sgd", "eager_diloco", "diloco"))
        made["targets"] = tables.time_to(MAIN, raw, MARGINS)
        made["facts"] = tables.facts(MAIN, raw)
        try:
            plot.draw(MAIN, raw, docs / "results/quality.png")
        except ImportError:
            print("results/quality.png is left as it was: there is no matplotlib", file=sys.stderr)
    if tables.curves(PAIR, raw):
        made["two workers"] = tables.equal_tokens(PAIR, raw)
    tables.write(docs / "results.md", made)


if __name__ == "__main__":
    sys.exit(main())
