"""Layers of configuration: YAML files that extend each other and key=value, merged into plain sections."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from halos.errors import ConfigError, UserError, shown

Section = dict[str, Any]
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one

# What a section is when no layer names its component.
DEFAULTS: Section = {
    "network": {"name": "matrix"},
    "faults": {"name": "none"},
    "compute": {"name": "constant"},
    "data": {"name": "text"},
    "weights": {"name": "uniform"},
    "codec": {"name": "fp32"},
    "executor": {"name": "inline"},
}
DEEPEST = 50  # sections in sections, files that extend files
NODES = 100_000  # keys and values in a file, those that aliases repeat included; OmegaConf takes 0.2 ms for each
RESOLVED = 2_000  # interpolations, likewise
LARGEST = 100_000_000  # characters of a text with interpolations
PATH_KEYS = ("env", "path", "weights")  # relative ones in a file are looked for beside it first


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
    if len(seen) >= DEEPEST:
        raise UserError(f"extends: {path} is the last of more than {DEEPEST} files that extend each other")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        loaded = _parse(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"{path} is not a mapping of keys to values")
    section: Section = _beside(loaded, path.parent, "", top=True)
    extends = section.pop("extends", None)
    below: Section = {}
    for name in extends if isinstance(extends, list) else [] if extends is None else [extends]:
        if not isinstance(name, str) or not name:
            raise ConfigError("extends", f"{shown(name)} in {path} is not the path of a file")
        base = path.parent / name
        if not os.path.isfile(base):
            raise ConfigError("extends", f"{base} {_absent(base)} (it is named in {path}, and looked for beside it)")
        below = merge(below, _read(base, (*seen, own), known))
    known[own] = merge(below, section)
    return known[own]


def overrides(texts: Iterable[str]) -> Section:
    """Several `key=value` as one layer, later ones over earlier ones."""
    layer: Section = {}
    for text in texts:
        layer = merge(layer, parse_override(text))
    return layer


def merge(below: Section, above: Section) -> Section:
    """`above` over `below`; a section that changes its `name` discards what lies below it."""
    merged = dict(below)
    for key, value in above.items():
        default = DEFAULTS.get(key, {}).get("name")  # what a section without a name is
        merged[key] = layered(merged.get(key), value, default)
    return merged


def layered(below: Any, above: Any, default: str | None = None) -> Any:
    """One value over another; sections mix, unless the upper names another component than the lower (or `default`)."""
    if isinstance(below, dict) and isinstance(above, str):
        above = {"name": above}  # `codec: fp16` is short for `codec: {name: fp16}`
    elif isinstance(below, str) and isinstance(above, dict):
        below = {"name": below}
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    name = below.get("name", default)
    if name is not None and above.get("name", name) != name:
        return above
    return below | {key: layered(below.get(key), value) for key, value in above.items()}


def parse_override(text: str) -> Section:
    """`a.b=value` as nested sections; the value is read as YAML."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise UserError(f"{shown(text)} is not key=value (for example budget.local_steps=512)")
    if key.count(".") >= DEEPEST:
        raise UserError(f"{shown(text)} is nested too deeply")
    if "[" in key:
        raise ConfigError(key, f"a list is replaced as a whole: {key.partition('[')[0]}=[…]")
    if key == "extends":
        raise ConfigError(key, "only a file extends others; write it there, or give that file as CONFIG")
    try:
        parsed = _parse(f"value: {value}")
    except ValueError as error:
        raise ConfigError(key, f"{shown(value)} is not valid YAML: {error}") from None
    if not isinstance(parsed, dict) or list(parsed) != ["value"]:
        raise ConfigError(key, f"{shown(value)} is more than one value")
    section: Any = parsed["value"]
    for part in reversed(key.split(".")):
        section = {part: section}
    result: Section = section
    return result


def interpolate(section: Section) -> Section:
    """Resolve `${other.key}`."""
    texts = list(_texts(section))
    if not any("${" in text for text in texts):
        return section
    # Whatever refers to whatever else, no text is taken in more often than that.
    times = math.prod(text.count("${") for text in texts if _multiplies(text, section))
    if times > RESOLVED or times * max(map(len, texts)) > LARGEST:
        raise UserError("too many ${…} that refer to values with several ${…} themselves")
    try:
        resolved = _resolved(OmegaConf.create(section), [RESOLVED])
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key or ""), str(error).splitlines()[0]) from None
    except RecursionError:
        raise UserError("the configuration is nested too deeply") from None
    assert isinstance(resolved, dict), "a mapping stays one"
    return cast(Section, resolved)


def _texts(value: Any) -> Iterator[str]:
    """Every text in `value`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _multiplies(text: str, section: Section) -> bool:
    """Whether a text holds several `${…}`, and any of them may stand for what holds some itself."""
    if text.count("${") < 2:
        return False
    for reference in text.split("${")[1:]:
        value: Any = section
        for part in reference.partition("}")[0].split("."):
            value = value.get(part, "${") if isinstance(value, dict) else "${"  # what is not a plain key is anything
        if any("${" in each for each in _texts(value)):
            return True
    return False


def _resolved(value: Any, room: list[int]) -> Any:
    """As plain Python, while there is room for what `${…}` bring in: lists that refer to lists grow fast."""
    if not isinstance(value, (DictConfig, ListConfig)):
        return value
    plain: dict[Any, Any] = {}
    holder: Any = value  # either takes its own keys
    keys: Any = value if isinstance(value, DictConfig) else range(len(value))
    for key in keys:
        if OmegaConf.is_interpolation(holder, key):
            room[0] -= 1
            if room[0] < 0:
                raise UserError(f"more than {RESOLVED:,} ${{…}}, those that others refer to counted again")
        plain[key] = "???" if OmegaConf.is_missing(holder, key) else _resolved(holder[key], room)
    return plain if isinstance(value, DictConfig) else list(plain.values())


def to_yaml(sections: Section) -> str:
    """Sections as YAML text."""
    text: str = yaml.dump(sections, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, where there is one
    """Quotes texts that OmegaConf would read back as numbers though YAML does not: `1e3`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse(text: str) -> Any:
    """YAML (as OmegaConf reads it: `1e-3` is a number) as plain Python; ValueError, of one line, if it is none."""
    try:
        check_depth(text)
        parsed = OmegaConf.to_container(OmegaConf.create(text, max_yaml_expanded_nodes=NODES), resolve=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem}") from None
    except AssertionError:  # OmegaConf's answer to a number or a boolean
        return text
    except RecursionError:  # aliases can nest what is written flat
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # PyYAML and OmegaConf raise many kinds; all mean that this is no config
        if isinstance(error, (KeyError, AttributeError, TypeError)):  # PyYAML's answer to `!!bool much`
            raise ValueError("a value does not fit its tag (!!…)") from None
        raise ValueError(next(iter(str(error).splitlines()), "")) from None
    if isinstance(parsed, dict) and list(parsed.values()) == [None] and ":" not in text:
        return text  # OmegaConf makes `{text: null}` of it
    return parsed


def check_depth(text: str) -> None:
    """ValueError if YAML is nested so deeply that libyaml's recursion, were it built, would crash the interpreter."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ValueError(f"line {line}: nested more than {DEEPEST} deep")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1


def _absent(path: Path) -> str:
    return "is not a file" if os.path.exists(path) else "does not exist"


def _beside(section: Any, folder: Path, key: str, *, top: bool = False) -> Any:
    """Relative paths in a file that exist beside it, seen from the working directory."""
    if isinstance(section, dict):
        # The top level has no paths but `plugins`; its `weights` are not a model's.
        return {
            name: value if top and name in PATH_KEYS else _beside(value, folder, str(name))
            for name, value in section.items()
        }
    if isinstance(section, list):
        return [_beside(each, folder, key) for each in section]
    if isinstance(section, str) and section and (key in PATH_KEYS or (key == "plugins" and section.endswith(".py"))):
        near = str(folder / section)
        if not os.path.isabs(section) and (os.path.exists(near) or os.path.exists(near + ".idx")):
            return near
    return section
