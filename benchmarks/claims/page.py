"""The tables of docs/claims.md, from the recorded numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from benchmarks.claims.claim import KNOWN, Check, Claim
from benchmarks.claims.verdict import CONTRADICTED, HOLDS, UNDECIDED, estimate, verdict
from halos.compare.statistics import Paired
from halos.errors import UserError

MISSING = "not measured"
MARKS = {HOLDS: "**holds**", CONTRADICTED: "**does not hold**", UNDECIDED: "undecided"}

Recorded = Mapping[str, Any]  # docs/results/claims.json: by claim


def judged(claim: Claim, recorded: Recorded) -> tuple[str, list[Optional[Paired]]]:
    """The verdict, and each check's estimate; there is none of a claim that was measured with other settings."""
    found = recorded.get(claim.id)
    if found is None or found["settings"] != claim.settings():
        return MISSING, []
    estimates = [estimate(check, numbers) for check, numbers in zip(claim.checks, found["checks"], strict=True)]
    return verdict(claim.checks, estimates), estimates


def write(path: Path, claims: Sequence[Claim], recorded: Recorded) -> None:
    """Put a table per paper between its `<!-- claims PAPER -->` and `<!-- end -->`, and the sum of verdicts."""
    page = path.read_text(encoding="utf-8")
    for paper in dict.fromkeys(claim.folder.name for claim in claims):
        page = _placed(page, paper, table([claim for claim in claims if claim.folder.name == paper], recorded))
    path.write_text(_placed(page, "all", summed(claims, recorded)), encoding="utf-8")


def table(claims: Sequence[Claim], recorded: Recorded) -> str:
    """One row a claim, as Markdown."""
    rows = [["claim", "published", "here", "measured", "bounds", "verdict", "repeat it"]]
    for claim in claims:
        said, estimates = judged(claim, recorded)
        numbers = [_number(check, each) for check, each in zip(claim.checks, estimates)]
        known = "" if claim.known == "read" else f" ({KNOWN[claim.known]})"
        rows.append(
            [
                f"{claim.says} *{claim.where}*",
                claim.published + known,
                claim.ours,
                "<br>".join(numbers) or "–",
                "<br>".join(map(_bounds, claim.checks)),
                MARKS.get(said, said),
                f"`python -m benchmarks.claims {claim.id}`",
            ]
        )
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def summed(claims: Sequence[Claim], recorded: Recorded) -> str:
    """How many claims hold."""
    found = [judged(claim, recorded)[0] for claim in claims]
    said = {HOLDS: "hold", CONTRADICTED: "do not hold", UNDECIDED: "undecided", MISSING: "not measured"}
    counts = [f"{found.count(each)} {words}" for each, words in said.items() if each in found]
    return f"Of {len(claims)} claims: {', '.join(counts)}."


def _number(check: Check, found: Optional[Paired]) -> str:
    """`H 80 − H 4: +0.031 (+0.012 to +0.050, 5 seeds)`"""
    if found is None:
        return f"{check.said()}: not reached by every seed, or diverged"
    sign, digits = ("+", ".3f") if check.minus else ("", ".3g")
    mean, low, high = (format(value, sign + digits) for value in (found.mean, found.low, found.high))
    several = f" ({low} to {high}, {found.count} seeds)" if found.count > 1 else ""
    return f"{check.said()}: {mean}{several}"


def _bounds(check: Check) -> str:
    low, high = (
        "" if each is None else f"{each:+g}" if check.minus and each else f"{each:g}" for each in check.between
    )
    return f"{low} to {high}" if low and high else f"≥ {low}" if low else f"≤ {high}" if high else "–"


def _placed(page: str, place: str, text: str) -> str:
    """The page with the text in its place. Raises UserError if it has none."""
    mark = f"<!-- claims {place} -->"
    found = re.search(re.escape(mark) + r"\n.*?<!-- end -->", page, re.S)
    if found is None:
        raise UserError(f"docs/claims.md has no place `{mark}` … `<!-- end -->`")
    return f"{page[: found.start()]}{mark}\n\n{text}\n\n<!-- end -->{page[found.end() :]}"
