"""Layers of configuration: YAML files that extend each other and key=value, merged into plain sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from halos.errors import ConfigError, UserError

Section = dict[str, Any]

PATH_KEYS = ("env", "path", "weights")  # relative ones in a file are looked for beside it first


def read(path: Path, seen: tuple[Path, ...] = ()) -> Section:
    """A config file on top of those it `extends`, as plain sections."""
    if path.resolve() in seen:
        raise UserError(f"extends: {path} extends itself")
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(path.read_text()), resolve=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except Exception as error:  # PyYAML and OmegaConf raise many kinds; all mean that this is no config
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"{path} is not a mapping of keys to values")
    section: Section = _beside(loaded, path.parent)
    extends = section.pop("extends", None)
    below: Section = {}
    for name in extends if isinstance(extends, list) else [] if extends is None else [extends]:
        if not isinstance(name, str):
            raise ConfigError("extends", f"{name!r} in {path} is not a path")
        below = merge(below, read(path.parent / name, (*seen, path.resolve())))
    return merge(below, section)


def merge(below: Section, above: Section, *, root: bool = True) -> Section:
    """`above` over `below`; a section that changes its `name` discards what lies below it."""
    if not root:
        changed = "name" in above and "name" in below and above["name"] != below["name"]
        if changed:
            return above
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, str):
            value = {"name": value}  # `codec: fp16` is short for `codec: {name: fp16}`
        merged[key] = merge(under, value, root=False) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def parse_override(text: str) -> Section:
    """`a.b=value` as nested sections; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key or not all(key.split(".")):
        raise UserError(f"{text!r} is not key=value (for example budget.local_steps=512)")
    try:
        parsed = OmegaConf.to_container(OmegaConf.create(f"value: {value}"), resolve=False)
    except Exception as error:  # as in `read`
        raise ConfigError(key, f"{value!r} is not valid YAML: {' '.join(str(error).split())}") from None
    assert isinstance(parsed, dict), "a mapping was written"
    section: Any = parsed["value"]
    for part in reversed(key.split(".")):
        section = {part: section}
    result: Section = section
    return result


def interpolate(section: Section) -> Section:
    """Resolve `${other.key}`."""
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(section), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key or ""), str(error).splitlines()[0]) from None
    assert isinstance(resolved, dict), "a mapping stays one"
    return cast(Section, resolved)


def to_yaml(sections: Section) -> str:
    """Sections as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(sections))


def _beside(section: Any, folder: Path, key: str = "") -> Any:
    """Relative paths in a file that exist beside it, seen from the working directory."""
    if isinstance(section, dict):
        return {name: _beside(value, folder, str(name)) for name, value in section.items()}
    if isinstance(section, list):
        return [_beside(each, folder, key) for each in section]
    if isinstance(section, str) and (key in PATH_KEYS or (key == "plugins" and section.endswith(".py"))):
        near = folder / section
        if not Path(section).is_absolute() and (near.exists() or near.with_name(near.name + ".idx").exists()):
            return str(near)
    return section
