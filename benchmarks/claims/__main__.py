"""`python -m benchmarks.claims [PAPER | PAPER/CLAIM …]`: run the sweeps of published claims, and judge them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Optional

from benchmarks.claims.claim import PAPERS, ROOT, chosen, claims
from benchmarks.claims.evidence import gathered
from benchmarks.claims.page import judged, write
from halos.command import FAILED, Parser, mistake
from halos.errors import UserError
from halos.observers.files import replacing
from halos.sweep.cli import main as sweep


def main(arguments: Optional[list[str]] = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m benchmarks.claims", description="Run the sweeps of published claims and judge them."
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="PAPER or PAPER/CLAIM; default: all")
    parser.add_argument("--list", action="store_true", help="what there is, and its verdicts so far; nothing is run")
    parser.add_argument("--report-only", action="store_true", help="nothing is run or judged anew: only the page is")
    parser.add_argument("--jobs", metavar="N", help="processes at once, as for halos.sweep")
    parser.add_argument("--papers", type=Path, default=PAPERS, help="folders of papers, each with a claims.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/papers", help="where the sweeps run")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where claims.md and results/ are")
    options = parser.parse_args(arguments)
    try:
        every = claims(options.papers)
        wanted = chosen(options.claims, every)
        record = options.docs / "results/claims.json"
        recorded: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
        failed = []
        if not options.list and not options.report_only:
            failed = _run({claim.grid: claim.runs(options.out) for claim in wanted}, options.jobs)
            for claim in wanted:
                if claim.grid not in failed:
                    recorded[claim.id], remarks = gathered(claim, claim.runs(options.out))
                    print(*(f"{claim.id}: {remark}" for remark in remarks), sep="\n", file=sys.stderr)
            _save(record, {claim.id: recorded[claim.id] for claim in every if claim.id in recorded})
        if not options.list:
            write(options.docs / "claims.md", every, recorded)
        for claim in wanted:
            print(f"{judged(claim, recorded)[0]:>13}  {claim.id}: {claim.says}")
    except UserError as error:
        return mistake(error)
    for grid in failed:
        print(f"failed: {grid}", file=sys.stderr)
    return FAILED if failed else 0


def _run(grids: dict[Path, Path], jobs: Optional[str]) -> list[Path]:
    """Run each grid in its folder; what has been run is not run again. Returns those of which some run failed."""
    failed = []
    for grid, out in grids.items():
        more = [] if jobs is None else ["--jobs", jobs]
        if sweep([str(grid), "--out", str(out), *more]):
            failed.append(grid)
    return failed


def _save(path: Path, recorded: dict[str, Any]) -> None:
    """A line per claim."""
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in recorded.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
