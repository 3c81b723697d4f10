"""References in configurations, `${other.key}`, resolved by OmegaConf once it is known that they do not multiply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError

RESOLVED = 2_000  # references, those that others refer to counted again
LARGEST = 100_000_000  # characters that texts with references may grow to
REFERENCE = re.compile(r"\$\{\s*([^${}:]*)(.?)", re.S)  # and what follows: `}`, the `:` of a resolver, or another `$`

Path = tuple[Any, ...]


def interpolate(section: Section) -> Section:
    """Resolve `${other.key}`. ConfigError names one that cannot be; UserError if there are too many."""
    longest = max((len(text) for text in _texts(section) if "${" in text), default=0)
    if not longest:
        return section
    try:
        count = References(section).takes((), section)
        if count > RESOLVED or count * longest > LARGEST:
            raise UserError(f"more than {RESOLVED:,} ${{…}}, or too long: those that others refer to are counted again")
        resolved = OmegaConf.to_container(OmegaConf.create(section), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key or ""), str(error).splitlines()[0]) from None
    except RecursionError:
        raise UserError("the configuration is nested too deeply") from None
    return cast(Section, resolved)


class References:
    """How many references are resolved for which value."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._known: dict[Path, int] = {}

    def takes(self, path: Path, value: Any) -> int:
        """For the value at `path`, with all inside it and all that these refer to. Circles are left to OmegaConf."""
        if path not in self._known:
            self._known[path] = 0
            if isinstance(value, str):
                several = (1 + self._target(path, *each) for each in REFERENCE.findall(value))
            else:
                several = (self.takes((*path, key), each) for key, each in _inside(value))
            self._known[path] = sum(several)
        return self._known[path]

    def _target(self, path: Path, key: str, follows: str) -> int:
        """What a reference in the text at `path` refers to takes."""
        if follows == "$":
            raise ConfigError(".".join(map(str, path)), "a key in ${…} cannot hold another ${…}")
        if follows == ":":
            return 0  # a resolver, whose result is taken as it is
        name = key.strip()
        up = len(name) - len(name.lstrip("."))  # `${.beside}`, `${..above}`
        found: Path = path[:-up] if up else ()
        value = self._at(found)
        for part in re.split(r"[.\[\]]+", name.strip(".]")):
            inside = {str(each): (each, inner) for each, inner in _inside(value)}
            if part not in inside:
                return 0  # OmegaConf will say so
            own, value = inside[part]
            found = (*found, own)
        return self.takes(found, value)

    def _at(self, path: Path) -> Any:
        value: Any = self._section
        for key in path:
            value = value[key]
        return value


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Keys (or positions) and values."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _texts(value: Any) -> Iterator[str]:
    """Every text in `value`."""
    if isinstance(value, str):
        yield value
    for _, each in _inside(value):
        yield from _texts(each)
