"""Claims: what a paper says, which sweep repeats it, and which numbers of it would bear it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import yaml

from halos.errors import UserError, did_you_mean

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

    `between` are the bounds within which it bears the claim out, null for none; they are set before it is measured.
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
        """A hash of what is measured: the grid, the configurations it names, and the checks but for their bounds."""
        asked = [[each.measure, each.of, each.minus, each.over] for each in self.checks]
        text = json.dumps([_written(self.grid), asked, self.baseline], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def claims(papers: Path = PAPERS) -> list[Claim]:
    """All claims, paper by paper. Raises UserError for a file that is none of claims."""
    found: list[Claim] = []
    for path in sorted(papers.glob("*/claims.yaml")):
        section = yaml.safe_load(path.read_text(encoding="utf-8"))
        for each in section["claims"]:
            _known(path, f"claims.{each.get('name')}", each, Claim, {"paper", "folder"})
            checks = tuple(_check(path, each["name"], check) for check in each["checks"])
            if each["known"] not in KNOWN:
                raise UserError(f"{path}: claims.{each['name']}.known: {each['known']!r} is none of {', '.join(KNOWN)}")
            found.append(Claim(section["paper"], path.parent, **{**each, "checks": checks}))
    return found


def chosen(asked: list[str], every: list[Claim]) -> list[Claim]:
    """Those of the names `PAPER` or `PAPER/CLAIM`; all without any. Raises UserError for an unknown name."""
    for name in asked:
        if not any(name in (each.id, each.folder.name) for each in every):
            there = [*dict.fromkeys(each.folder.name for each in every), *(each.id for each in every)]
            raise UserError(f"{name!r} is no claim{did_you_mean(name, there)}; --list lists them")
    return [each for each in every if not asked or each.id in asked or each.folder.name in asked]


def _check(path: Path, name: str, section: dict[str, Any]) -> Check:
    _known(path, f"claims.{name}.checks", section, Check)
    low, high = section["between"]
    if "minus" in section and "over" in section:
        raise UserError(f"{path}: claims.{name}.checks: minus and over are one too many")
    return Check(**{**section, "between": (low, high)})


def _known(path: Path, where: str, section: dict[str, Any], kind: type, given: Set[str] = frozenset()) -> None:
    """Raise UserError for a key that is unknown, or missing."""
    known = {each.name: each for each in fields(kind) if each.name not in given}
    for key in section:
        if key not in known:
            raise UserError(f"{path}: {where}.{key} is unknown{did_you_mean(key, known)}")
    for key, field in known.items():
        if key not in section and field.default is not None:
            raise UserError(f"{path}: {where} has no {key}")


def _written(path: Path) -> Any:
    """A YAML file as it is written, and all configurations that it names, wherever the files lie."""
    section = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [section, *(_written(path.parent / name) for name in _named(section))]


def _named(value: Any) -> Iterator[str]:
    """The YAML files under `config` and `extends`, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            files = list(inner.values()) if isinstance(inner, dict) else [inner]
            if key in ("config", "extends") and all(isinstance(each, str) for each in files):
                yield from files
            else:
                yield from _named(inner)
