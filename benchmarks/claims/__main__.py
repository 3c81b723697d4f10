"""`python -m benchmarks.claims [PAPER | PAPER/CLAIM …]`: run the sweeps of published claims, and judge them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Optional

from benchmarks.claims.claim import PAPERS, ROOT, Claim, chosen, claims
from benchmarks.claims.evidence import gathered
from benchmarks.claims.page import judged, write
from halos.command import FAILED, INTERRUPTED, MISTAKE, Parser, mistake
from halos.errors import UserError
from halos.observers.files import replacing, writing
from halos.sweep.cli import main as sweep


def main(arguments: Optional[list[str]] = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m benchmarks.claims", description="Run the sweeps of published claims and judge them."
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="PAPER or PAPER/CLAIM; default: all")
    parser.add_argument("--list", action="store_true", help="what there is, and its verdicts so far; nothing is run")
    parser.add_argument("--report-only", action="store_true", help="nothing is run or measured: only the page is anew")
    parser.add_argument("--jobs", metavar="N", help="processes at once, as for halos.sweep")
    parser.add_argument("--papers", type=Path, default=PAPERS, help="folders of papers, each with a claims.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/papers", help="where the sweeps run")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where claims.md and results/ are")
    try:
        return _claims(parser.parse_args(arguments))
    except UserError as error:
        return mistake(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _claims(options: argparse.Namespace) -> int:
    every = claims(options.papers)
    wanted = chosen(options.claims, every)
    record, page = options.docs / "results/claims.json", options.docs / "claims.md"
    recorded = _recorded(record)
    if not options.list:
        write(page, every, recorded)  # before anything runs: what cannot be written is said now
    code = 0
    if not options.list and not options.report_only:
        for grid in dict.fromkeys(claim.grid for claim in wanted):
            asked = [claim for claim in wanted if claim.grid == grid]
            more = [] if options.jobs is None else ["--jobs", options.jobs]
            came = sweep([str(grid), "--out", str(asked[0].runs(options.out)), *more])
            if came in (MISTAKE, INTERRUPTED):  # said by the sweep; what came of those before it is written
                return came
            if came:
                print(f"failed, and measured no claim: {grid}", file=sys.stderr)
                code = code or FAILED
                continue
            code = _measured(asked, options.out, recorded) or code
            _save(record, every, recorded)
            write(page, every, recorded)
    for claim in wanted:
        print(f"{judged(claim, recorded)[0]:>13}  {claim.id}: {claim.says}")
    return code


def _measured(asked: list[Claim], out: Path, recorded: dict[str, Any]) -> int:
    """Put into `recorded` what the claims' runs say; of a mistake in a claim, the exit code."""
    code = 0
    for claim in asked:
        try:
            recorded[claim.id], remarks = gathered(claim, claim.runs(out))
        except UserError as error:
            code = mistake(UserError(f"{claim.id}: {error}"))
            continue
        for remark in remarks:
            print(f"{claim.id}: {remark}", file=sys.stderr)
    return code


def _recorded(path: Path) -> dict[str, Any]:
    """The numbers so far, by claim."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no record of claims")
    return found


def _save(path: Path, every: list[Claim], recorded: dict[str, Any]) -> None:
    """A line per claim, in their order; those of papers that are not here are kept, others that are gone are not."""
    papers = {claim.folder.name for claim in every}
    names = [claim.id for claim in every] + [name for name in recorded if name.partition("/")[0] not in papers]
    lines = [f"{json.dumps(name)}: {json.dumps(recorded[name])}" for name in names if name in recorded]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
