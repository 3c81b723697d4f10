"""References in configurations, `${other.key}`, resolved by OmegaConf once it is known that they do not multiply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Optional

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from halos.config.written import Items, Layer, Written, at, inside, others, plain, texts, written
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError

RESOLVED = 2_000  # references, those that others refer to counted again
LARGEST = 100_000_000  # characters that texts with references may grow to
# A reference that is not escaped, and what follows: `}`, the `:` of a resolver, or another `$`.
REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\$\{\s*([^${}:]*)(.?)", re.S)
ESCAPED = re.compile(r"(\\*)\$\{")
ONLY = re.compile(r"\$\{\s*([^${}:]*)\}")  # a text that is one reference and nothing else

Place = tuple[Any, ...]  # keys and positions, from the top


def refers(section: Section) -> bool:
    """Whether there is any `${…}` in it."""
    return any("${" in text for text in _texts(section))


def interpolate(section: Section, only: Optional[str] = None) -> Section:
    """Resolve `${other.key}`, or those of one key alone. ConfigError names one that cannot be; UserError: too many.

    Texts remember where they were written: what `${other.key}` stands for, as the other key's value does; what is put
    together from references and more, where it is put together, of values as they are spelled.
    """
    wanted = section if only is None else {only: section.get(only)}
    if not refers(wanted):
        return section
    longest = max(len(text) for text in _texts(section) if "${" in text)
    try:
        references = References(section)
        count = sum(references.takes((key,), value) for key, value in wanted.items())
        if count > RESOLVED or count * longest > LARGEST:
            raise UserError(f"more than {RESOLVED:,} ${{…}}, or too long: those that others refer to are counted again")
        values, spelled = _resolved(plain(section), only), _resolved(texts(section), only)
        resolved = Layer(inside(section), others(section))
        for key in wanted:
            resolved.put(key, references.remembered((key,), at(section, key), values[key], spelled[key]))
        return resolved
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key or ""), str(error).splitlines()[0]) from None
    except RecursionError:
        raise UserError("the configuration is nested too deeply") from None


def escaped(text: str) -> str:
    """Return the text that `interpolate` makes `text` of."""
    return ESCAPED.sub(lambda found: 2 * found[1] + "\\${", text)


def _resolved(values: Section, only: Optional[str]) -> dict[Any, Any]:
    config = OmegaConf.create(values)
    if only is None:
        return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    value = config[only]
    return {only: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value}


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
                several = (self.takes((*place, key), inner) for key, inner in inside(value))
            self._known[place] = sum(several)
        return self._known[place]

    def remembered(self, place: Place, value: Any, resolved: Any, spelled: Any) -> Any:
        """Return what the value at `place` was resolved to, with all that it remembers.

        That is `resolved`, or `spelled` if a text was put together.
        """
        if isinstance(value, str):
            only = ONLY.fullmatch(value)
            target = self._target(place, only[1]) if only else None
            if target is not None:
                return self.remembered(*target, resolved, spelled)
            resolved = spelled if isinstance(resolved, str) else resolved
            return written(resolved, value.folder) if isinstance(value, Written) else resolved
        within = (
            (key, self.remembered((*place, key), inner, resolved[key], spelled[key])) for key, inner in inside(value)
        )
        if isinstance(value, dict):
            return Layer(within, others(value))
        return Items(inner for _, inner in within) if isinstance(value, list) else value

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
            known = {str(own): (own, inner) for own, inner in inside(value)}
            if part not in known:
                return None  # OmegaConf will say so
            own, value = known[part]
            found = (*found, own)
        return found, value

    def _at(self, place: Place) -> Any:
        value: Any = self._section
        for key in place:
            value = at(value, key)
        return value


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in `value`."""
    if isinstance(value, str):
        yield value
    for _, inner in inside(value):
        yield from _texts(inner)
