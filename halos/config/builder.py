"""From plain sections to dataclasses: named sections become the components they name."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union

from halos.config.layers import layered
from halos.config.paths import absolute
from halos.config.sections import sections_of
from halos.config.written import Layer, Spelled, at, inside, plain
from halos.config.written import others as of_others
from halos.errors import ConfigError, UserError, did_you_mean, shown
from halos.plugins.registry import KINDS, Plugins

KIND_OF = {protocol: kind for kind, (protocol, _) in KINDS.items()}
WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    dict: "a section of keys and values",
    type(None): "null",
    Any: "anything",
}


class Unwritable(ConfigError):
    """A text that config.yaml could not hold: a folder's name may be any bytes."""


class Builder:
    """Turns sections into dataclasses, fields annotated with a Protocol into the component they name."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._dropped: dict[str, None] = {}

    @property
    def dropped(self) -> list[str]:
        """What was written of one component and does not fit the one that took its place: a line for each key."""
        return list(self._dropped)

    def build(self, cls: type[Any], section: Any, key: str) -> Any:
        """Return an instance of dataclass `cls` from the section at `key`. Raises ConfigError for what does not fit."""
        if not isinstance(section, dict):
            raise ConfigError(key, f"{shown(section)} is not a section of keys and values")
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        others = of_others(section)
        for name in section:
            if name not in fields and name not in others:
                raise ConfigError(
                    _join(key, str(name)), f"no such key{did_you_mean(str(name), fields)}; there are: {_listed(fields)}"
                )
        for other in dict.fromkeys(others.values()):
            strange = [name for name in section if name not in fields and others[name] == other]
            own = self._plugins.name_of(cls) or "what is there now"
            if strange:
                self._drop(key, ", ".join(strange), other, f"{own} has no such key")
        hints = _hints(cls, key)
        values = {}
        for name, field in fields.items():
            hint, where = hints[name], _join(key, name)
            if name in section:
                try:
                    values[name] = self.convert(hint, self.on_default(hint, at(section, name), field), where)
                    continue
                except ConfigError as error:
                    if name not in others:
                        raise
                    self._drop(key, name, others[name], error.problem if error.key == where else str(error))
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
                    raise ConfigError(where, f"missing; it must be {self.describe(hint)}")
                values[name] = self.build(hint, {}, where)  # its own message says what it needs
        try:
            return self._made(cls, values, key, others)
        except ConfigError as error:
            raise error.under(key) from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(key, str(error)) from None

    def convert(self, hint: Any, value: Any, key: str) -> Any:
        """Return `value` as the annotation `hint` wants it. Raises ConfigError for `key` if it does not fit."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if isinstance(value, Spelled):
            value = value.text if self._means_text(hint, value) else value.value
        if hint in KIND_OF:
            return self._component(KIND_OF[hint], value, key)
        if origin in (Union, types.UnionType):
            return self._union(hint, list(arguments), value, key)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.build(hint, _section(hint, value), key)
        if origin in (list, Sequence):
            if isinstance(value, list):
                return [self.convert(arguments[0], item, f"{key}[{i}]") for i, item in inside(value)]
            if isinstance(value, dict):  # from an override such as regions.0=…
                raise ConfigError(key, f"{shown(value)} is not {self.describe(hint)}; it is replaced as a whole")
        if origin is tuple and isinstance(value, list):
            inner = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
            if len(inner) == len(value):
                return tuple(self.convert(inner[i], item, f"{key}[{i}]") for i, item in inside(value))
        if origin is dict and isinstance(value, dict):
            return {str(name): self.convert(arguments[1], item, _join(key, str(name))) for name, item in inside(value)}
        return self._plain(hint, value, key)

    def describe(self, hint: Any) -> str:
        """Return in words what the annotation `hint` allows."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in KIND_OF:
            return self._describe_kind(KIND_OF[hint])
        if origin in (Union, types.UnionType):
            return " or ".join(self.describe(argument) for argument in arguments)
        if origin is typing.Literal:
            return repr(arguments[0]) if len(arguments) == 1 else "one of " + ", ".join(map(str, arguments))
        if origin is list and typing.get_origin(arguments[0]) is list:
            return f"a list of lists, each {self.describe(typing.get_args(arguments[0])[0])}"
        if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
            return f"a list, each {self.describe(arguments[0])}"
        if origin is tuple:
            words = [self.describe(argument) for argument in arguments]
            return f"a list of {len(words)}" + (
                f", each {words[0]}" if len(set(words)) == 1 else f": {', '.join(words)}"
            )
        if origin is dict:
            return f"a section, each value {self.describe(arguments[1])}"
        if dataclasses.is_dataclass(hint):
            return WORDS[dict]
        return WORDS.get(hint) or f"a {hint}, which no value in a config ever is"

    def _made(self, cls: type[Any], values: dict[str, Any], key: str, others: dict[str, str]) -> Any:
        """Return an instance of `cls`, without those of the `others` that it refuses."""
        while True:
            try:
                return cls(**values)
            except ConfigError as error:
                name = re.split(r"[.\[]", error.key)[0]
                if name not in values or name not in others:
                    raise
                self._drop(key, name, others[name], error.problem)
                del values[name]

    def _means_text(self, hint: Any, value: Spelled) -> bool:
        """Whether an annotation means the text that is written, and not the number (true, false, null) it is."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if not value.text:
            return False
        if origin is typing.Literal:
            return value.text in arguments and value.value not in arguments
        if origin in (Union, types.UnionType):
            itself = [int, float, Any] if type(value.value) is int else [type(value.value), Any]
            return not any(each in arguments for each in itself) and any(
                self._means_text(argument, value) for argument in arguments
            )
        return hint in (str, Path) or (hint in KIND_OF and value.text in self._plugins.components[KIND_OF[hint]])

    def _drop(self, key: str, names: str, other: str, problem: str) -> None:
        self._dropped[f"{key}: dropped {names}, written of {other or 'another component'}: {problem}"] = None

    def _describe_kind(self, kind: str) -> str:
        return f"{_a(kind)}: {{name: …}}, one of {', '.join(sorted(self._plugins.components[kind])) or 'none'}"

    def _plain(self, hint: Any, value: Any, key: str) -> Any:
        if hint is Any or (typing.get_origin(hint) is typing.Literal and value in typing.get_args(hint)):
            return plain(value)
        if hint in (list, tuple, dict) and isinstance(value, list if hint is tuple else hint):
            return hint(plain(value))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if hint is bool and isinstance(value, bool):
            return value
        if hint is int and number and (isinstance(value, int) or value.is_integer()):
            if not -(2**63) <= value < 2**63:
                raise ConfigError(key, f"{shown(value)} is too large; an integer is below 2^63")
            return int(value)  # 1e6 is an integer to everybody but YAML
        if hint is float and number:
            try:
                return float(value)
            except OverflowError:
                raise ConfigError(key, f"{shown(value)} is too large for a number") from None
        if hint is str and (isinstance(value, str) or number):
            return _in_utf8(str(value), key)
        if hint is Path and isinstance(value, str) and value:
            return Path(_in_utf8(absolute(value), key))
        if hint is type(None) and value is None:
            return None
        raise ConfigError(key, f"{shown(value)} is not {self.describe(hint)}")

    def _union(self, hint: Any, arguments: list[Any], value: Any, key: str) -> Any:
        if value is None and type(None) in arguments:
            return None
        some = [argument for argument in arguments if argument is not type(None)]
        own = str if isinstance(value, str) else type(value)
        own = float if own is int and int not in some else own
        if own in some:  # Union[str, int] of 5 is 5
            return self.convert(own, value, key)
        fitting = [option for option in some if not isinstance(value, (list, dict)) or self._may_hold(option, value)]
        if len(fitting) == 1 and fitting[0] not in WORDS:
            return self.convert(fitting[0], value, key)  # its own message says more
        for option in fitting:
            try:
                return self.convert(option, value, key)
            except Unwritable:
                raise
            except ConfigError:
                continue
        raise ConfigError(key, f"{shown(value)} is not {self.describe(hint)}")

    def _may_hold(self, hint: Any, value: Union[list[Any], dict[Any, Any]]) -> bool:
        """Whether a list (or a section) can become what `hint` says."""
        origin = typing.get_origin(hint) or hint
        if isinstance(value, list):
            return origin in (list, tuple, Sequence, Any)
        return origin in (dict, Any) or hint in KIND_OF or dataclasses.is_dataclass(hint)

    def _component(self, kind: str, value: Any, key: str) -> Any:
        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, dict):
            raise ConfigError(key, f"{shown(value)} is not {self._describe_kind(kind)}")
        if "name" not in section:
            raise ConfigError(_join(key, "name"), f"missing; it must be {self._describe_kind(kind)}")
        name = at(section, "name")
        if isinstance(name, Spelled):
            name = name.text if name.text in self._plugins.components[kind] else name.value
        if not isinstance(name, str):
            raise ConfigError(_join(key, "name"), f"{shown(name)} is not the name of {self._describe_kind(kind)}")
        try:
            cls = self._plugins.find(kind, name)
        except UserError as error:
            raise ConfigError(_join(key, "name"), str(error)) from None
        own = Layer((each for each in inside(section) if each[0] != "name"), of_others(section))
        return self.build(cls, own, key)

    def on_default(self, hint: Any, value: Any, field: dataclasses.Field[Any]) -> Any:
        """Return a section without a `name`, for a component that has a default, on top of that; else `value`."""
        component = any(inner in KIND_OF for inner in (hint, *typing.get_args(hint)))
        if not component or not isinstance(value, dict) or "name" in value:
            return value
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        below = sections_of(default, self._plugins)
        return layered(below, value) if isinstance(below, dict) else value


def path_fields(cls: type[Any]) -> list[str]:
    """The names of a dataclass's fields that hold paths."""
    hints = typing.get_type_hints(cls)
    return [field.name for field in dataclasses.fields(cls) if field.init and _holds_path(hints[field.name])]


def _holds_path(hint: Any) -> bool:
    return hint is Path or any(map(_holds_path, typing.get_args(hint)))


def _section(cls: type[Any], value: Any) -> Any:
    """`schedule: constant` is short for `schedule: {name: constant}` where there is a name to choose."""
    if value is None:
        return {}
    has_name = any(field.name == "name" and field.default for field in dataclasses.fields(cls))
    return {"name": value} if isinstance(value, str) and has_name else value


def _in_utf8(text: str, key: str) -> str:
    """Return `text`. Raises Unwritable if it is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unwritable(
            key, f"{shown(text)} is no UTF-8, and config.yaml could not hold it; rename what is so called"
        ) from None
    return text


def _hints(cls: type[Any], key: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception as error:  # an annotation is any expression
        what = f"{cls.__module__}.{cls.__qualname__}"
        raise ConfigError(key, f"the annotations of {what} cannot be read: {error}") from None


def _a(noun: str) -> str:
    """The noun with its article, if it takes one."""
    return noun if noun.endswith("weights") else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
