"""Cells with their configurations, and the folders in which they run: named after labels and configuration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from halos.config.config import Config, resolved
from halos.config.layers import merge
from halos.config.sections import to_sections
from halos.config.written import Layer
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError, from_here
from halos.plugins.registry import VERSION, Plugins
from halos.run.assembly import connected
from halos.run.resuming import FREE
from halos.sweep.axes import Label, text_of
from halos.sweep.grid import Combination, said

# What makes no other run of it: how it is called, and what may change when a run goes on.
OUTSIDE = ("name", "out", "plugins", *FREE)
LONGEST_LABEL, LONGEST_NAME = 32, 120  # characters in a folder's name
DIGEST = 8  # characters of the digest in it
QUIET: Section = Layer([("observers", Layer([("progress", False)]))])
TIMED: Section = Layer(
    [
        ("executor", Layer([("name", "timing")])),
        ("observers", Layer([("progress", False), ("tensorboard", False), ("trace", False), ("records", "none")])),
    ]
)


@dataclass(frozen=True)
class Cell:
    """A run of the sweep; its configuration has been resolved, and says where it runs."""

    labels: dict[str, Label]
    config: Config
    plugins: Plugins
    without: Sequence[str]  # packages whose plugins are left out
    digest: str  # of all that makes it this run and no other

    @property
    def folder(self) -> Path:
        return self.config.folder

    def __str__(self) -> str:
        return said(self.labels) or self.config.name


class Cells:
    """Makes cells of combinations, for a sweep in `folder`; the plugins are loaded once for all that name the same."""

    def __init__(self, folder: Path, plugins: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        self._folder, self._plugins, self._without = folder, plugins, without
        self._load = lru_cache(maxsize=None)(Plugins)

    def made(self, combinations: Iterable[Combination], timed: bool = False) -> list[Cell]:
        """The cells, or runs of these without training if they are to be `timed`.

        Raises UserError for the first of which there is something wrong, or which is the same run as another.
        """
        several = list(combinations)
        heads = _heads(list(several[0].labels) if several else [])
        cells: dict[str, Cell] = {}
        for each in several:
            try:
                cell = self._cell(each, heads, timed)
            except UserError as error:
                raise _of(each, error) from None
            if cell.digest in cells:
                raise UserError(f"two cells are the same run: {cells[cell.digest]}; and {cell}")
            cells[cell.digest] = cell
        return list(cells.values())

    def _cell(self, combination: Combination, heads: dict[str, str], timed: bool) -> Cell:
        section = merge(combination.section, TIMED if timed else QUIET)
        tried, (config, found) = (resolved(section, self._plugins, self._without, self._loaded) for _ in range(2))
        connected(*tried)  # says what does not fit the cluster, or another component, and changes what it is given
        digest = _digest(config, found)
        named = ",".join(f"{heads[name]}={_plain(label)}" for name, label in combination.labels.items())
        config.name = (named or _plain(config.name))[:LONGEST_NAME]
        config.out = str(self._folder / f"{config.name}-{digest}")
        return Cell(combination.labels, config, found, self._without, digest)

    def _loaded(self, names: Sequence[str], without: Sequence[str]) -> Plugins:
        return self._load(tuple(names), tuple(without))


def _of(combination: Combination, error: UserError) -> UserError:
    """A mistake, with the cell it is in."""
    where = f" (in the cell {said(combination.labels)})" if combination.labels else ""
    if isinstance(error, ConfigError):
        return ConfigError(error.key, f"{error.problem}{where}")
    return UserError(f"{error}{where}")


def _digest(config: Config, plugins: Plugins) -> str:
    """What a run is known by: its configuration, and the sources of its plugins, but of those that only watch it."""
    sections = to_sections(config, plugins)
    for key in OUTSIDE:
        *above, last = key.split(".")
        inside = sections
        for part in above:
            inside = inside.get(part) or {}
        inside.pop(last, None)
    used = {from_here(name) for name in config.plugins} | set(_origins(config, plugins))
    sources = {
        origin: digest for origin, digest in plugins.versions(watching=False).items() if from_here(origin) in used
    }
    text = json.dumps([sections, sorted(sources.values()), VERSION], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]


def _origins(value: Any, plugins: Plugins) -> Iterator[str]:
    """Where the components of a configuration come from."""
    if is_dataclass(value) and not isinstance(value, type):
        name = plugins.name_of(type(value))
        for known in plugins.components.values():
            component = None if name is None else known.get(name)
            if component is not None and component.cls is type(value):
                yield component.origin
        for field in fields(value):
            yield from _origins(getattr(value, field.name, None), plugins)
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _origins(inner, plugins)


def _heads(names: Sequence[str]) -> dict[str, str]:
    """What axes are called in a folder's name: the last part of the key, or as many as tell it from the others."""
    heads = {}
    for name in names:
        parts = name.split(".")
        ends = [other.split(".") for other in names if other != name]
        count = next((n for n in range(1, len(parts)) if not any(end[-n:] == parts[-n:] for end in ends)), len(parts))
        heads[name] = _plain(".".join(parts[-count:]))
    return heads


def _plain(label: Label) -> str:
    """A label as a part of a folder's name, that no shell minds."""
    return re.sub(r"[^\w.+-]+", "-", text_of(label)).strip("-")[:LONGEST_LABEL] or "-"
