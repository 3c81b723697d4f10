"""`observers.extra`, whose keys are the names of components, on its way to sections that name theirs."""

from __future__ import annotations

from typing import Any, Optional

from halos.config.written import Layer, Spelled, as_text, at, inside, others
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError, did_you_mean, shown
from halos.plugins.registry import Plugins

KIND = "observer"
MEANT = "{} or true turns it on with its defaults, null or false off"


def naming(section: Section, plugins: Plugins) -> Section:
    """Return the merged sections, each of `observers.extra` with its name in it, and without those that are off.

    Raises ConfigError for a name that nothing has, and for what is neither options nor on or off. One that is off need
    not be installed. What is no section is left as it is, to be refused by others.
    """
    observers = section.get("observers")
    extra = observers.get("extra") if isinstance(observers, dict) else None
    if not isinstance(observers, dict) or not isinstance(extra, dict):
        return section
    made = Layer()
    for name, value in inside(extra):
        key = f"observers.extra.{name}"
        options = _options(value, key)
        if options is None:
            if near := "" if name in (known := plugins.components[KIND]) else did_you_mean(str(name), known):
                raise ConfigError(key, f"is off, but no {KIND} has that name{near}")
            continue
        try:
            plugins.find(KIND, str(name))
        except UserError as error:
            raise ConfigError(key, str(error)) from None
        if as_text(at(options, "name") if "name" in options else name) != name:
            raise ConfigError(f"{key}.name", f"{shown(options['name'])} is not {name}, which its key says")
        made.put(str(name), Layer([*inside(options), ("name", name)], others(options)))
    changed = Layer(inside(observers), others(observers))
    changed.put("extra", made)
    whole = Layer(inside(section), others(section))
    whole.put("observers", changed)
    return whole


def _options(value: Any, key: str) -> Optional[Section]:
    """Return what is set of an observer, nothing if it has its defaults; None if it is off."""
    if isinstance(value, Spelled):
        if value.value is None and not value.text:
            raise ConfigError(key, f"says nothing; {MEANT}")
        value = value.value
    if value is None or isinstance(value, bool):
        return Layer() if value else None
    if not isinstance(value, dict):
        raise ConfigError(key, f"{shown(value)} is not a section of keys and values; {MEANT}")
    return value
