"""Layers of configuration: YAML files that extend each other and key=value, merged into plain sections."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from halos.config.earlier import up_to_date
from halos.config.paths import expanded
from halos.config.written import Items, Layer, as_text, at, inside, others, written
from halos.config.yaml_text import MOST_NESTED, Section, parse
from halos.errors import ConfigError, UserError, shown

# What a section is when no layer names its component.
DEFAULTS: Section = {
    "network": {"name": "matrix"},
    "faults": {"name": "none"},
    "compute": {"name": "constant"},
    "data": {"name": "text"},
    "weights": {"name": "uniform"},
    "aggregate": {"name": "mean"},
    "codec": {"name": "fp32"},
    "executor": {"name": "inline"},
}
MOST_EXTENDING = 50  # files, one the next
NO_YAML = ("*", "@", "%", "`")  # what a value in YAML cannot begin with, as there is nothing that `*` could refer to


def read(path: Path) -> Section:
    """A config file on top of those it `extends`, as plain sections."""
    try:
        return _read(path, (), {})
    except RecursionError:  # aliases can nest what is written flat
        raise UserError(f"{path} is nested too deeply") from None


def _read(path: Path, seen: tuple[Path, ...], known: dict[Path, Section]) -> Section:
    """The same; `seen` are the files that extend this one, `known` those that have been read."""
    own = Path(os.path.realpath(path))
    if own in known:
        return known[own]
    if own in seen:
        raise UserError(f"extends: {path} extends itself")
    if len(seen) >= MOST_EXTENDING:
        raise UserError(f"extends: {path} is the last of more than {MOST_EXTENDING} files that extend each other")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        loaded = parse(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"{path} is not a mapping of keys to values")
    section: Section = written(up_to_date(loaded), Path(os.path.realpath(path.parent)))
    extends = at(section, "extends") if section.get("extends") is not None else Items()
    section.pop("extends", None)
    below: Section = Layer()
    for name in (as_text(each) for _, each in inside(extends if isinstance(extends, list) else Items([extends]))):
        if not isinstance(name, str) or not name:
            raise ConfigError("extends", f"{shown(name)} in {path} is not the path of a file")
        base = path.parent / expanded(name)
        if not os.path.isfile(base):
            raise ConfigError("extends", f"{base} {_absent(base)} (it is named in {path}, and looked for beside it)")
        below = merge(below, _read(base, (*seen, own), known))
    known[own] = merge(below, section)
    return known[own]


def overrides(texts: Iterable[str]) -> Section:
    """Several `key=value` as one layer, later ones over earlier ones."""
    layer: Section = Layer()
    for text in texts:
        layer = _mixed(layer, parse_override(text), {}, one=True)
    return layer


def merge(below: Section, above: Section) -> Section:
    """`above` over `below`.

    A section that names another component keeps, of what was written below it, what that component has as well; which
    of it that is, the builder sees. Plain dictionaries were not written, and are replaced then.
    """
    default = {key: section["name"] for key, section in DEFAULTS.items()}  # what a section without a name is
    return _mixed(below, above, default, one=False)


def layered(below: Any, above: Any, default: str = "", one: bool = False) -> Any:
    """One value over another; sections mix.

    If the upper one names another component than the lower (or `default`), keys of the lower are remembered to be of
    that. In `one` layer, whose order means nothing, keys without a name are of the component that is named.
    """
    if isinstance(below, dict) and isinstance(above, str):
        above = Layer([("name", above)])  # `codec: fp16` is short for `codec: {name: fp16}`
    elif isinstance(below, str) and isinstance(above, dict):
        below = Layer([("name", below)])
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    name = below.get("name", default)
    if above.get("name", name) != name and isinstance(name, str) and not (one and not name):
        if isinstance(below, Layer):
            below = _of(name, below)
        elif name:
            return above
    return _mixed(below, above, {}, one)


def _mixed(below: Section, above: Section, defaults: dict[str, str], one: bool) -> Section:
    mixed = dict(inside(below))
    for key, value in inside(above):
        mixed[key] = layered(mixed[key], value, defaults.get(key, ""), one) if key in mixed else value
    if not isinstance(below, Layer) and not isinstance(above, Layer):
        return mixed
    return Layer(mixed.items(), {key: name for key, name in others(below).items() if key not in above} | others(above))


def _of(name: str, value: Any) -> Any:
    """`value`, in which all keys but `name` and those inside lists are remembered to be of component `name`.

    Those of a component inside it are of that one.
    """
    if not isinstance(value, Layer):
        return value
    own = value["name"] if isinstance(value.get("name"), str) else name
    return Layer(
        ((key, _of(own, inner)) for key, inner in inside(value)),
        {key: own for key in value if key != "name"} | value.others,
    )


def parse_override(text: str) -> Section:
    """`a.b=value` as nested sections; the value is read as YAML, or is the text itself if no YAML begins so: `*.py`."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise UserError(f"{shown(text)} is not key=value (for example budget.local_steps=512)")
    if key.count(".") >= MOST_NESTED:
        raise UserError(f"{shown(text)} is nested too deeply")
    if "[" in key:
        raise ConfigError(key, f"a list is replaced as a whole: {key.partition('[')[0]}=[…]")
    if key == "extends":
        raise ConfigError(key, "only a file extends others; write it there, or give that file as CONFIG")
    if value.strip().startswith(NO_YAML):
        section: Any = value.strip()
    else:
        try:
            parsed = parse(f"value: {value}")
        except ValueError as error:
            raise ConfigError(key, f"{shown(value)} is not valid YAML: {error}") from None
        if not isinstance(parsed, dict) or list(parsed) != ["value"]:
            raise ConfigError(key, f"{shown(value)} is more than one value")
        section = at(parsed, "value")
    for part in reversed(key.split(".")):
        section = Layer([(part, section)])
    result: Section = section
    return result


def _absent(path: Path) -> str:
    return "is not a file" if os.path.exists(path) else "does not exist"
