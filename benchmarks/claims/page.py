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
from halos.observers.files import replacing

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
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for paper in dict.fromkeys(claim.folder.name for claim in claims):
        page = _placed(path, page, paper, table([claim for claim in claims if claim.folder.name == paper], recorded))
    page = _placed(path, page, "all", summed(claims, recorded))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


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
    """How many claims hold, apart by how well they are known: what is our own is no agreement with a paper."""
    found: dict[str, list[str]] = {}
    for claim in claims:
        found.setdefault(claim.known, []).append(judged(claim, recorded)[0])
    said = {HOLDS: "hold", CONTRADICTED: "do not hold", UNDECIDED: "undecided", MISSING: "not measured"}
    called = {"read": "read in papers", "second-hand": "second-hand", "derived": "derived by us"}
    return "\n".join(
        f"* Of {len(found[known])} {called[known]}: "
        + ", ".join(f"{found[known].count(each)} {words}" for each, words in said.items() if each in found[known])
        for known in KNOWN
        if known in found
    )


def _number(check: Check, found: Optional[Paired]) -> str:
    """`H 80 − H 4: +0.031 (+0.012 to +0.050, 5 seeds)`"""
    if found is None:
        return f"{check.said()}: not known of every seed: diverged, or not reached"
    sign, digits = ("+", ".3f") if check.minus else ("", ".4g" if check.over else ".3g")
    mean, low, high = (format(value, sign + digits) for value in (found.mean, found.low, found.high))
    several = f" ({low} to {high}, {found.count} seeds)" if found.count > 1 else ""
    return f"{check.said()}: {mean}{several}"


def _bounds(check: Check) -> str:
    low, high = (
        "" if each is None else f"{each:+g}" if check.minus and each else f"{each:g}" for each in check.between
    )
    return f"{low} to {high}" if low and high else f"≥ {low}" if low else f"≤ {high}" if high else "–"


def _placed(path: Path, page: str, place: str, text: str) -> str:
    """The page with the text in its place. Raises UserError if it has none."""
    mark = f"<!-- claims {place} -->"
    found = re.search(re.escape(mark) + r"\n.*?<!-- end -->", page, re.S)
    if found is None:
        raise UserError(f"{path} has no place for a table: write there `{mark}`, and `<!-- end -->` in a line below")
    return f"{page[: found.start()]}{mark}\n\n{text}\n\n<!-- end -->{page[found.end() :]}"
