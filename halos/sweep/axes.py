"""The axes of a grid: `key=a,b,c` split into choices, and a grid file's lists and labelled overrides."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, Union

from halos.config.config import LONGEST_LABEL
from halos.config.layers import layered, parse_override
from halos.config.topics import flow
from halos.config.written import Layer, Spelled, as_text, at, inside, plain
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError, shown

Label = Union[int, float, str]
COUNTED = re.compile(r"\s*(-?\d+)\.\.(-?\d+)\s*")  # 0..4
MOST = 100_000  # values that are counted
OWN = {"name": "a cell is named after its labels", "out": "the folder of a sweep is --out DIR"}
OPENS_TEXT = ("", "[", "{", ",", ":")  # what a quote follows that begins a text


@dataclass(frozen=True)
class Choice:
    """One value of an axis: what it is called, and what it changes in the configuration."""

    label: Label
    changes: Section


@dataclass(frozen=True)
class Axis:
    """What cells differ in. Its name is a key of the configuration, or whatever labelled overrides are called."""

    name: str
    choices: tuple[Choice, ...]
    labelled: bool = False  # the choices are sections of overrides, and their labels no values

    def __post_init__(self) -> None:
        labels = [text_of(choice.label) for choice in self.choices]
        if not labels:
            raise ConfigError(self.name, "an axis without values")
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ConfigError(self.name, f"{shown(twice)} is given twice")


def values(text: str) -> list[str]:
    """The parts of a value between its commas, those inside [], {} and quotes left out; `\\,` is a comma.

    `0..4` stands for 0, 1, 2, 3, 4. One part: the value is no axis. Raises ValueError for an empty part, or a count
    that comes to nothing.
    """
    parts = _split(text)
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ValueError(f"{shown(text)} has nothing between two commas, or before or after one")
    counted: list[str] = []
    for part in parts:
        found = COUNTED.fullmatch(part)
        counted += [part] if found is None else map(str, counting(int(found[1]), int(found[2])))
    return counted


def is_axis(text: str) -> bool:
    """Whether a value on the command line is several: one that counts is, even if it counts to one."""
    return len(_split(text)) > 1 or COUNTED.fullmatch(text) is not None


def counting(first: int, last: int) -> range:
    """`first..last`, both included. Raises ValueError if that is nothing, or no end of values."""
    if not 0 <= last - first < MOST:
        raise ValueError(f"{first}..{last} is not a count upwards, of {MOST:,} at most")
    return range(first, last + 1)


def from_text(argument: str) -> Axis:
    """The axis that `key=a,b,c` is; every value is read as `key=value` is. Raises UserError for what is none."""
    key, _, value = argument.partition("=")
    key = key.strip()
    try:
        several = values(value)
    except ValueError as error:
        raise ConfigError(key, str(error)) from None
    return Axis(key, tuple(_choice(key, parse_override(f"{key}={each}"), each) for each in several))


def chosen(axis: Axis, text: str) -> Axis:
    """Those choices of a labelled axis that `a,b` names. Raises ConfigError for a label that there is not."""
    try:
        wanted = [parse_override(f"label={each}")["label"] for each in values(text)]
    except ValueError as error:
        raise ConfigError(axis.name, str(error)) from None
    known = {text_of(choice.label): choice for choice in axis.choices}
    for label in map(str, wanted):
        if label not in known:
            raise ConfigError(axis.name, f"{shown(label)} is not one of the grid file's {', '.join(known)}")
    return Axis(axis.name, tuple(known[str(label)] for label in wanted), labelled=True)


def from_file(name: str, value: Any, read: Optional[Callable[[Any, str], Section]] = None) -> Axis:
    """The axis `name` of a grid file: a list of values, `0..4`, or a section of overrides by label.

    `read` makes a section of what a label stands for, and is told its key; without it, that is overrides.
    """
    if isinstance(value, dict):
        labelled = ((label, (read or changes)(inner, f"axes.{name}.{label}")) for label, inner in inside(value))
        return Axis(name, tuple(Choice(short(str(label)), section) for label, section in labelled), labelled=True)
    written = as_text(value)
    found = COUNTED.fullmatch(written) if isinstance(written, str) else None
    if found is not None:
        try:
            items: list[Any] = [Spelled(number, str(number)) for number in counting(int(found[1]), int(found[2]))]
        except ValueError as error:
            raise ConfigError(f"axes.{name}", str(error)) from None
    elif isinstance(value, list):
        items = [item for _, item in inside(value)]
    else:
        raise ConfigError(
            f"axes.{name}",
            f"{shown(plain(value))} is not a list of values, a count such as 0..4, or a section of overrides by label",
        )
    return Axis(name, tuple(_choice(name, nested(name, item), flow(plain(item))) for item in items))


def changes(value: Any, key: str) -> Section:
    """The overrides in a grid file's section: keys may be nested, or have dots. ConfigError if it is none."""
    if isinstance(value, Spelled) and value.value is None:
        return Layer()
    if not isinstance(value, dict):
        raise ConfigError(key, f"{shown(plain(value))} is not a section of overrides (keys may have dots)")
    section: Section = Layer()
    for name, inner in inside(value):
        if name == "out":  # a name does no harm: a grid file may say what its configuration is called
            raise ConfigError(f"{key}.{name}", f"belongs to no cell: {OWN[name]}")
        section = layered(section, nested(str(name), inner), one=True)
    return section


def nested(key: str, value: Any) -> Section:
    """`a.b` and a value as sections."""
    if not key or not all(key.split(".")):
        raise UserError(f"{shown(key)} is no key")
    for part in reversed(key.split(".")):
        value = Layer([(part, value)])
    section: Section = value
    return section


def text_of(label: Label) -> str:
    """A label as people write it: `0.001`, `1e+15`."""
    brief = f"{label:.15g}" if isinstance(label, float) else str(label)
    return brief if isinstance(label, str) or float(brief) == label else repr(label)


def short(text: str) -> str:
    """A text as a label: one line that is not too long, and still another for another text."""
    line = "".join(each if each.isprintable() else " " for each in text).strip() or '""'
    if len(line) <= LONGEST_LABEL:
        return line
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{line[: LONGEST_LABEL - 8]}…{digest}"


def _choice(key: str, section: Section, text: str) -> Choice:
    """The choice that sets `key`, by a section that does nothing else; `text` is how it is written."""
    value: Any = section
    for part in key.split("."):
        value = at(value, part)
    if isinstance(value, Spelled):
        number = type(value.value) is int and abs(value.value) < 2**63
        known = number or (isinstance(value.value, float) and math.isfinite(value.value))
        return Choice(value.value if known else short(value.text or str(value.value)), section)
    return Choice(short(value if isinstance(value, str) else text), section)


def _split(text: str) -> list[str]:
    parts, quote, depth, escaped = [""], "", 0, False
    for each in text:
        if escaped:
            parts[-1] = parts[-1][:-1] + each if each == "," else parts[-1] + each
            escaped = False
            continue
        escaped = each == "\\"
        if quote:
            quote = "" if each == quote else quote
        elif each in "'\"" and parts[-1].rstrip()[-1:] in OPENS_TEXT:
            quote = each
        elif each in "[{":
            depth += 1
        elif each in "]}":
            depth = max(0, depth - 1)
        elif each == "," and not depth:
            parts.append("")
            continue
        parts[-1] += each
    return parts
