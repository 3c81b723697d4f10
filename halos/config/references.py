"""References in configurations, `${other.key}`, resolved by OmegaConf once it is known that they do not multiply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Optional

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from halos.config.paths import Written, plain, written
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError

RESOLVED = 2_000  # references, those that others refer to counted again
LARGEST = 100_000_000  # characters that texts with references may grow to
REFERENCE = re.compile(r"\$\{\s*([^${}:]*)(.?)", re.S)  # and what follows: `}`, the `:` of a resolver, or another `$`
ONLY = re.compile(r"\$\{\s*([^${}:]*)\}")  # a text that is one reference and nothing else

Place = tuple[Any, ...]  # keys and positions, from the top


def interpolate(section: Section) -> Section:
    """Resolve `${other.key}`. ConfigError names one that cannot be; UserError if there are too many.

    Texts remember where they were written: what `${other.key}` stands for, as the other key's value does; what is put
    together from references and more, where it is put together.
    """
    longest = max((len(text) for text in _texts(section) if "${" in text), default=0)
    if not longest:
        return section
    try:
        references = References(section)
        count = references.takes((), section)
        if count > RESOLVED or count * longest > LARGEST:
            raise UserError(f"more than {RESOLVED:,} ${{…}}, or too long: those that others refer to are counted again")
        resolved = OmegaConf.to_container(OmegaConf.create(plain(section)), resolve=True)
        return dict(references.remembered((), section, resolved))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key or ""), str(error).splitlines()[0]) from None
    except RecursionError:
        raise UserError("the configuration is nested too deeply") from None


class References:
    """Follows the `${…}` of a configuration: where they lead, and how many are resolved for which value."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._known: dict[Place, int] = {}

    def takes(self, place: Place, value: Any) -> int:
        """Return how many references are resolved for the value at `place`, all inside it and all that these refer to.

        Circles are left to OmegaConf. Raises ConfigError for a reference within a reference.
        """
        if place not in self._known:
            self._known[place] = 0
            if isinstance(value, str):
                several = (1 + self._beyond(place, *found) for found in REFERENCE.findall(value))
            else:
                several = (self.takes((*place, key), inner) for key, inner in _inside(value))
            self._known[place] = sum(several)
        return self._known[place]

    def remembered(self, place: Place, value: Any, resolved: Any) -> Any:
        """Return `resolved`, to which the value at `place` was, with texts that remember where they were written."""
        if isinstance(value, str):
            only = ONLY.fullmatch(value)
            target = self._target(place, only[1]) if only else None
            if target is not None:
                return self.remembered(*target, resolved)
            return written(resolved, value.folder) if isinstance(value, Written) else resolved
        if isinstance(value, dict):
            return {key: self.remembered((*place, key), inner, resolved[key]) for key, inner in value.items()}
        if isinstance(value, list):
            pairs = zip(value, resolved, strict=True)
            return [self.remembered((*place, i), *pair) for i, pair in enumerate(pairs)]
        return resolved

    def _beyond(self, place: Place, key: str, follows: str) -> int:
        """Return how many references are resolved for what `key`, in the text at `place`, refers to."""
        if follows == "$":
            raise ConfigError(".".join(map(str, place)), "a key in ${…} cannot hold another ${…}")
        if follows == ":":
            return 0  # a resolver, whose result is taken as it is
        target = self._target(place, key)
        return 0 if target is None else self.takes(*target)

    def _target(self, place: Place, key: str) -> Optional[tuple[Place, Any]]:
        """Return where and what a reference in the text at `place` refers to; None if that is not there."""
        name = key.strip()
        up = len(name) - len(name.lstrip("."))  # `${.beside}`, `${..above}`
        found: Place = place[:-up] if up else ()
        value = self._at(found)
        for part in re.split(r"[.\[\]]+", name.strip(".]")):
            inside = {str(own): (own, inner) for own, inner in _inside(value)}
            if part not in inside:
                return None  # OmegaConf will say so
            own, value = inside[part]
            found = (*found, own)
        return found, value

    def _at(self, place: Place) -> Any:
        value: Any = self._section
        for key in place:
            value = value[key]
        return value


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield keys (or positions) and values."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in `value`."""
    if isinstance(value, str):
        yield value
    for _, inner in _inside(value):
        yield from _texts(inner)
