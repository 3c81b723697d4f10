"""Claims: what a paper says, which sweep repeats it, and which numbers of it would bear it out."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Optional

from halos.config.layers import read
from halos.config.paths import expanded
from halos.config.written import Written, plain
from halos.errors import UserError, did_you_mean, shown, under
from halos.sweep.grid import asked

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "configs/papers"
KNOWN = {  # how well the line is known
    "read": "the paper's own text",
    "second-hand": "second-hand: no agreement with the paper is claimed",
    "derived": "derived by us, in closed form",
}


@dataclass(frozen=True)
class Check:
    """A number that can be measured: a group's, or its difference (`minus`) or ratio (`over`) to another's.

    `between` are the bounds within which it bears the claim out, null for none of the two; they are set before it is
    measured.
    """

    measure: str
    of: str
    between: tuple[Optional[float], Optional[float]]
    minus: Optional[str] = None
    over: Optional[str] = None

    @property
    def other(self) -> Optional[str]:
        """The group it is held against, if any."""
        return self.minus or self.over

    def said(self) -> str:
        """What is measured, in words."""
        against = f" − {self.minus}" if self.minus else f" / {self.over}" if self.over else ""
        return f"{self.measure}: {self.of}{against}"


@dataclass(frozen=True)
class Claim:
    """A published claim and its repetition."""

    paper: str
    folder: Path  # of the paper's configurations
    runs_asked: str  # all that the sweep's runs are asked to do
    name: str
    says: str
    where: str
    published: str
    known: str
    sweep: str
    ours: str
    checks: tuple[Check, ...]
    baseline: Optional[str] = None  # of targets such as `seconds@loss=+0.1`

    @property
    def id(self) -> str:
        return f"{self.folder.name}/{self.name}"

    @property
    def grid(self) -> Path:
        return self.folder / self.sweep

    def runs(self, out: Path) -> Path:
        """Where in `out` the sweep runs."""
        return out / self.folder.name / Path(self.sweep).stem

    def settings(self) -> str:
        """A hash of what is measured: the sweep's runs, and the checks but for their bounds."""
        asked_for = [(each.measure, each.of, each.minus, each.over) for each in self.checks]
        return hashlib.sha256(repr((self.runs_asked, asked_for, self.baseline)).encode()).hexdigest()[:16]


def claims(papers: Path = PAPERS) -> list[Claim]:
    """All claims, paper by paper. Raises UserError for a file that is none of claims, or whose sweeps are none."""
    found: dict[str, Claim] = {}
    described = cache(_runs_asked)
    for path in sorted(papers.glob("*/claims.yaml")):
        section = plain(read(path))
        paper, listed = section.pop("paper", None), section.pop("claims", None)
        if section or not isinstance(paper, str) or not isinstance(listed, list) or not listed:
            raise UserError(f"{path} has to have `paper`, a text, `claims`, a list of sections, and nothing else")
        for each in listed:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(name, str):
                raise UserError(f"{path}: claims: {shown(each)} is no section with a name")
            claim = _claim(f"{path}: claims.{name}", each, paper, path.parent)
            with under(f"{path}: claims.{name}.sweep"):
                claim = replace(claim, runs_asked=described(claim.grid))
            if claim.id in found:
                raise UserError(f"{path}: claims.{name} is there twice")
            found[claim.id] = claim
    if not found:
        raise UserError(f"{papers} has no folder with a claims.yaml")
    return list(found.values())


def chosen(names: list[str], every: list[Claim]) -> list[Claim]:
    """Those of the names `PAPER` or `PAPER/CLAIM`; all without any. Raises UserError for an unknown name."""
    for name in names:
        if not any(name in (each.id, each.folder.name) for each in every):
            there = [*dict.fromkeys(each.folder.name for each in every), *(each.id for each in every)]
            raise UserError(f"{name!r} is no claim{did_you_mean(name, there)}; --list lists them")
    return [each for each in every if not names or each.id in names or each.folder.name in names]


def _claim(where: str, section: dict[str, Any], paper: str, folder: Path) -> Claim:
    """A claim whose sweep has not been looked at."""
    _known(where, section, Claim, {"paper", "folder", "runs_asked"})
    _texts(where, section, "checks")
    if section["known"] not in KNOWN:
        raise UserError(f"{where}.known: {section['known']!r} is none of {', '.join(KNOWN)}")
    checks = section["checks"]
    if not isinstance(checks, list) or not checks:
        raise UserError(f"{where}.checks: {shown(checks)} is no list of checks")
    judged = tuple(_check(f"{where}.checks", each) for each in checks)
    return Claim(paper, folder, "", **{**section, "checks": judged})


def _check(where: str, section: Any) -> Check:
    if not isinstance(section, dict):
        raise UserError(f"{where}: {shown(section)} is no section")
    _known(where, section, Check)
    _texts(where, section, "between")
    between = section["between"]
    if not isinstance(between, list) or len(between) != 2 or not all(each is None or _finite(each) for each in between):
        raise UserError(f"{where}.between: {shown(between)} is not two numbers, or null for no bound: [0.0, null]")
    low, high = between
    if low is None and high is None:
        raise UserError(f"{where}.between: {shown(between)} holds whatever is measured")
    if low is not None and high is not None and low > high:
        raise UserError(f"{where}.between: {shown(between)} can hold of nothing")
    check = Check(**{**section, "between": (low, high)})
    if check.minus and check.over:
        raise UserError(f"{where}: minus and over are one too many")
    if check.other == check.of:
        raise UserError(f"{where}: {check.of} is held against itself")
    return check


def _known(where: str, section: dict[str, Any], kind: type, given: Set[str] = frozenset()) -> None:
    """Raise UserError for a key that is unknown, or missing."""
    known = {each.name: each for each in fields(kind) if each.name not in given}
    for key in section:
        if key not in known:
            raise UserError(f"{where}.{key} is unknown{did_you_mean(str(key), known)}")
    for key, field in known.items():
        if key not in section and field.default is not None:
            raise UserError(f"{where} has no {key}")


def _texts(where: str, section: dict[str, Any], but: str) -> None:
    """Raise UserError for a value that is no text."""
    for key, value in section.items():
        if key != but and (not isinstance(value, str) or not value.strip()):
            raise UserError(f"{where}.{key}: {shown(value)} is no text; a number is one in quotes")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _runs_asked(grid: Path) -> str:
    """The configurations of all of a grid's cells, with what is in the files that they name.

    Of code only that beside the grid is among it, such as a measure of the paper's own: what the simulator's and the
    plugins' computes is watched by their tests. The corpus that a run read is recorded with its numbers.
    """
    sections = [cell.section for cell in asked([str(grid)], []).cells()]
    if not sections:
        raise UserError(f"{grid}: without: leaves no cell")
    named = {(str(text), text.folder / expanded(text)) for section in sections for text in _named(section)}
    contents = sorted(
        (text, hashlib.sha256(path.read_bytes()).hexdigest())  # and not the path, which is another on each machine
        for text, path in named
        if path.suffix != ".py" or grid.parent.resolve() in path.resolve().parents
    )
    return repr((plain(sections), contents))


def _named(value: Any) -> Iterator[Written]:
    """The texts that are names of files, from where they are written."""
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _named(inner)
    elif isinstance(value, Written) and os.path.isfile(value.folder / expanded(value)):
        yield value
