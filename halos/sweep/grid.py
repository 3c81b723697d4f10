"""What a sweep is asked for: a configuration, the axes of its grid, and the cells that these make."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

from halos.config.layers import layered, merge, overrides, parse_override, read
from halos.config.paths import expanded
from halos.config.references import escaped
from halos.config.written import Layer, Spelled, as_text, at, inside, plain
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError, did_you_mean, shown
from halos.sweep.axes import OWN, Axis, Choice, Label, changes, chosen, from_file, from_text, is_axis, short, text_of

KEYS = ("config", "set", "axes", "without")  # of a grid file
MOST = 100_000  # cells
LINES = "cell"  # the axis that a list of cells is
CONFIG = "config"  # a grid file's key; and the axis that several configurations are


@dataclass(frozen=True)
class Combination:
    """A cell as it is asked for: its label on each axis, and its configuration."""

    labels: dict[str, Label]
    section: Section

    def __str__(self) -> str:
        return said(self.labels) or "the only cell"


@dataclass(frozen=True)
class Grid:
    """The product of axes, without what is left out."""

    config: Section  # below everything
    axes: tuple[Axis, ...]
    fixed: Section  # above the axes of a grid file: the command line's key=value
    above: frozenset[str]  # the names of axes that are above that, the command line's own
    without: tuple[Mapping[str, str], ...]

    def cells(self) -> Iterator[Combination]:
        """Every cell; the last axis changes fastest."""
        for choices in itertools.product(*(axis.choices for axis in self.axes)):
            labels = {axis.name: choice.label for axis, choice in zip(self.axes, choices, strict=True)}
            if not any(_fits(labels, each) for each in self.without):
                yield Combination(labels, self._section(labels, choices))

    def _section(self, labels: dict[str, Label], choices: Sequence[Choice]) -> Section:
        section, line = self.config, self.fixed
        for axis, choice in zip(self.axes, choices, strict=True):
            if axis.name in self.above:
                line = layered(line, choice.changes, one=True)
            else:
                section = merge(section, choice.changes)
        named = Layer((name, escaped(label) if isinstance(label, str) else label) for name, label in labels.items())
        return merge(merge(section, line), Layer([("labels", named)]))


def said(labels: Mapping[str, Label]) -> str:
    """Labels as messages have them."""
    return ", ".join(f"{name} {text_of(label)}" for name, label in labels.items())


def asked(files: Sequence[str], arguments: Sequence[str], lines: Optional[Path] = None) -> Grid:
    """The grid of `key=value` and `key=a,b,c` on top of a grid file, or of configurations; an axis more with `lines`.

    Several configurations are an axis, `config`. What the command line says of a key takes the place of the file's axis
    of that name. Raises UserError.
    """
    paths = [Path(expanded(file)) for file in files]
    given = {path: read(path) for path in paths}
    grids = [path for path in paths if {CONFIG, "axes"} & given[path].keys()]
    if grids and len(files) > 1:
        raise UserError(f"{grids[0]} is a grid of its own, and cannot be one of several configurations")
    without: tuple[Mapping[str, str], ...] = ()
    section: Section = Layer()
    axes: dict[str, Axis] = {}
    if grids:
        section, axes, without = _of_file(paths[0], given[paths[0]])
    elif len(files) == 1:
        section = given[paths[0]]
    else:
        axes = {CONFIG: _of_configs({str(path): path for path in paths}, Layer())}
    fixed: dict[str, str] = {}
    above: dict[str, Axis] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.strip()
        if equals and key in axes and axes[key].labelled:
            axes[key] = chosen(axes[key], value)
            continue
        parse_override(f"{key}={value if not is_axis(value) else 0}" if equals else argument)  # its mistakes
        if key in OWN:
            raise ConfigError(key, f"belongs to no cell: {OWN[key]}")
        fixed.pop(key, None)
        above.pop(key, None)
        axes.pop(key, None)
        if is_axis(value):
            above[key] = from_text(argument)
        else:
            fixed[key] = argument
    if lines is not None:
        axes[LINES] = _listed(lines)
    several = {**axes, **above}
    if math.prod(len(axis.choices) for axis in several.values()) > MOST:
        raise UserError(f"more than {MOST:,} cells")
    return Grid(section, tuple(several.values()), overrides(fixed.values()), frozenset(above), without)


def _of_file(path: Path, given: Section) -> tuple[Section, dict[str, Axis], tuple[Mapping[str, str], ...]]:
    """What a grid file says: the configuration, axes by name, and what is left out."""
    for key in given:
        if key not in KEYS:
            near = did_you_mean(key, KEYS)
            raise ConfigError(key, f"no such key of a grid file{near}; there are: {', '.join(KEYS)}")
    base = as_text(at(given, CONFIG)) if given.get(CONFIG) is not None else None
    for_all = changes(at(given, "set") if "set" in given else Layer(), "set")
    section: Section = Layer()
    axes: dict[str, Axis] = {}
    if isinstance(base, str):
        section = merge(read(path.parent / expanded(base)), for_all)
    elif CONFIG not in given and _has_own(given.get("axes")):
        section = for_all
    elif isinstance(base, (dict, list)) and base and all(isinstance(as_text(each), str) for _, each in inside(base)):
        named = {str(label if isinstance(base, dict) else each): str(as_text(each)) for label, each in inside(base)}
        axes = {CONFIG: _of_configs({name: path.parent / expanded(each) for name, each in named.items()}, for_all)}
    else:
        said = f"{shown(plain(base))} is not the path of a configuration, from {path}, nor several (label: path)"
        raise ConfigError("config", said)
    listed = given.get("axes", Layer())
    if not isinstance(listed, dict):
        raise ConfigError("axes", f"{shown(plain(listed))} is not a section of axes")
    for key in OWN:
        if key in listed:
            raise ConfigError(f"axes.{key}", f"belongs to no cell: {OWN[key]}")
    left_out = given.get("without") or []
    if not isinstance(left_out, list) or not all(isinstance(each, dict) and each for each in left_out):
        raise ConfigError("without", f"{shown(plain(left_out))} is not a list of sections, each of labels by axis")
    without = tuple({str(name): _as_label(label) for name, label in inside(each)} for each in left_out)
    read_ = partial(_changes, folder=path.parent, for_all=for_all)
    axes |= {str(name): from_file(str(name), value, read_) for name, value in inside(listed)}
    _check_without(without, axes)
    return section, axes, without


def _has_own(axes: Any) -> bool:
    """Whether some label of a grid file has a configuration of its own."""
    several = axes.values() if isinstance(axes, dict) else ()
    return any(
        CONFIG in each for axis in several if isinstance(axis, dict) for each in axis.values() if isinstance(each, dict)
    )


def _changes(value: Any, key: str, folder: Path, for_all: Section) -> Section:
    """What a label of a grid file stands for: overrides, and below these a configuration of its own if it has one."""
    if not isinstance(value, dict) or CONFIG not in value:
        return changes(value, key)
    base = as_text(at(value, CONFIG))
    if not isinstance(base, str):
        raise ConfigError(f"{key}.{CONFIG}", f"{shown(plain(base))} is not the path of a configuration")
    others = Layer((name, inner) for name, inner in inside(value) if name != CONFIG)
    return merge(merge(read(folder / expanded(base)), for_all), changes(others, key))


def _of_configs(paths: Mapping[str, Path], above: Section) -> Axis:
    """The axis of several configurations, with what is set above each; without labels the files' names are theirs."""
    stems = [path.stem for path in paths.values()]
    labels = [
        path.stem if label.endswith(path.name) and stems.count(path.stem) == 1 else label
        for label, path in paths.items()
    ]
    read_ = (merge(read(path), above) for path in paths.values())
    return Axis(CONFIG, tuple(Choice(short(label), section) for label, section in zip(labels, read_)), labelled=True)


def _listed(path: Path) -> Axis:
    """The cells in a file of lines `label: key=value key=value`; `#` begins a comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"--list: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    choices = []
    for number, line in enumerate(text.splitlines(), 1):
        label, colon, words = line.partition(":")
        try:
            arguments = shlex.split(words, comments=True)
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if not colon or not label.strip():
                raise UserError("is not label: key=value key=value")
            section = overrides(arguments)
            if "out" in section:
                raise ConfigError("out", f"belongs to no cell: {OWN['out']}")
            choices.append(Choice(short(label.strip()), section))
        except (UserError, ValueError) as error:
            raise UserError(f"--list: {path}, line {number}: {error}") from None
    return Axis(LINES, tuple(choices))


def _check_without(without: Sequence[Mapping[str, str]], axes: Mapping[str, Axis]) -> None:
    """Raise ConfigError for a label that there is not: it would leave nothing out."""
    for index, each in enumerate(without):
        for name, label in each.items():
            if name not in axes:
                raise ConfigError(f"without[{index}].{name}", f"no such axis{did_you_mean(name, axes)}")
            known = [text_of(choice.label) for choice in axes[name].choices]
            if label not in known:
                raise ConfigError(f"without[{index}].{name}", f"{shown(label)} is not one of {', '.join(known[:20])}")


def _as_label(value: Any) -> str:
    """A label of a grid file, as axes have theirs."""
    number = isinstance(value, Spelled) and isinstance(value.value, (int, float)) and not isinstance(value.value, bool)
    return text_of(value.value) if number else str(as_text(value))


def _fits(labels: Mapping[str, Any], partly: Mapping[str, str]) -> bool:
    return all(name in labels and text_of(labels[name]) == label for name, label in partly.items())
