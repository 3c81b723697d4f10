"""From plain sections to dataclasses and back: named sections become the components they name."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Union

from halos.errors import ConfigError, UserError, did_you_mean
from halos.plugins import KINDS, Plugins


class Builder:
    """Turns sections into dataclasses, fields annotated with a Protocol into the component they name."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._kinds = {protocol: kind for kind, (protocol, _) in KINDS.items()}

    def build(self, cls: type[Any], section: Any, key: str) -> Any:
        """An instance of dataclass `cls` from the section at `key`."""
        if not isinstance(section, dict):
            raise ConfigError(key, f"{section!r} is not a section of keys and values")
        fields = {each.name: each for each in dataclasses.fields(cls) if each.init}
        for name in section:
            if name not in fields:
                known = ", ".join(sorted(fields)) or "none"
                raise ConfigError(
                    _join(key, str(name)), f"no such key; there are: {known}{did_you_mean(str(name), fields)}"
                )
        hints = typing.get_type_hints(cls)
        values = {}
        for name, each in fields.items():
            if name in section:
                values[name] = self.convert(hints[name], section[name], _join(key, name))
            elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
                raise ConfigError(_join(key, name), f"missing; it must be {self.describe(hints[name])}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise error.under(key) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(key, str(error)) from None

    def convert(self, hint: Any, value: Any, key: str) -> Any:
        """`value` as the annotation `hint` wants it."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in self._kinds:
            return self._component(self._kinds[hint], value, key)
        if origin in (Union, types.UnionType):
            return self._union(hint, list(arguments), value, key)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.build(hint, {} if value is None else value, key)
        if origin is list and isinstance(value, list):
            return [self.convert(arguments[0], each, f"{key}[{i}]") for i, each in enumerate(value)]
        if origin is tuple and isinstance(value, list):
            inner = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
            if len(inner) == len(value):
                return tuple(self.convert(each, one, f"{key}[{i}]") for i, (each, one) in enumerate(zip(inner, value)))
        if origin is dict and isinstance(value, dict):
            return {str(name): self.convert(arguments[1], each, _join(key, str(name))) for name, each in value.items()}
        return self._plain(hint, origin, arguments, value, key)

    def describe(self, hint: Any) -> str:
        """What `hint` allows, in words."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        words: dict[Any, str] = {
            int: "an integer",
            float: "a number",
            bool: "true or false",
            str: "a text",
            type(None): "null",
        }
        if hint in self._kinds:
            kind = self._kinds[hint]
            return f"a {kind}: {{name: …}}, one of {', '.join(sorted(self._plugins.components[kind]))}"
        if origin in (Union, types.UnionType):
            return " or ".join(self.describe(each) for each in arguments)
        if origin is typing.Literal:
            return "one of " + ", ".join(map(str, arguments))
        if origin is list:
            return f"a list, each {self.describe(arguments[0])}"
        if origin is tuple:
            return f"a list of {len(arguments)}, each {self.describe(arguments[0])}"
        if origin is dict:
            return f"a section, each value {self.describe(arguments[1])}"
        return words.get(hint, "a section of keys and values")

    def _plain(self, hint: Any, origin: Any, arguments: tuple[Any, ...], value: Any, key: str) -> Any:
        if hint is Any or (origin is typing.Literal and value in arguments):
            return value
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if hint is bool and isinstance(value, bool):
            return value
        if hint is int and is_number and math.isfinite(value) and value == int(value):
            return int(value)  # 1e6 is an integer to everybody but YAML
        if hint is float and is_number:
            return float(value)
        if hint is str and (isinstance(value, str) or is_number):
            return str(value)
        if hint is type(None) and value is None:
            return None
        raise ConfigError(key, f"{value!r} is not {self.describe(hint)}")

    def _union(self, hint: Any, arguments: list[Any], value: Any, key: str) -> Any:
        if value is None and type(None) in arguments:
            return None
        some = [each for each in arguments if each is not type(None)]
        if len(some) == 1 and (
            dataclasses.is_dataclass(some[0]) or some[0] in self._kinds or typing.get_origin(some[0])
        ):
            return self.convert(some[0], value, key)  # its own message says more
        for each in some:
            try:
                return self.convert(each, value, key)
            except ConfigError:
                continue
        raise ConfigError(key, f"{value!r} is not {self.describe(hint)}")

    def _component(self, kind: str, value: Any, key: str) -> Any:
        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, dict):
            raise ConfigError(key, f"{value!r} is not a {kind}: {{name: …}}")
        name = section.get("name")
        known = ", ".join(sorted(self._plugins.components[kind]))
        if not isinstance(name, str):
            raise ConfigError(_join(key, "name"), f"missing; a {kind} is one of {known}")
        try:
            cls = self._plugins.find(kind, name)
        except UserError as error:
            raise ConfigError(_join(key, "name"), str(error)) from None
        return self.build(cls, {each: one for each, one in section.items() if each != "name"}, key)


def to_sections(value: Any, plugins: Plugins) -> Any:
    """A resolved configuration as plain sections again: what `config.yaml` holds, and can be run from."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        section = {
            each.name: to_sections(getattr(value, each.name), plugins)
            for each in dataclasses.fields(value)
            if each.init
        }
        name = plugins.name_of(type(value))
        return section if name is None else {"name": name, **section}
    if isinstance(value, (list, tuple)):
        return [to_sections(each, plugins) for each in value]
    if isinstance(value, dict):
        return {key: to_sections(each, plugins) for key, each in value.items()}
    return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
