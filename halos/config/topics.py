"""The topics that `--explain` knows: sections, components and keys, read from the classes themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import yaml

from halos.config.builder import KIND_OF, Builder
from halos.config.comments import meanings
from halos.config.config import Config
from halos.config.layers import DEFAULTS
from halos.config.sections import to_sections
from halos.errors import ConfigError, did_you_mean, shown
from halos.plugins import hookspecs
from halos.plugins.registry import ADD, KINDS, Component, Plugins, docstring

REQUIRED = "required"
HINTS = {field.name: typing.get_type_hints(Config)[field.name] for field in dataclasses.fields(Config) if field.init}
UNCHOSEN = ("merge_rule", "observers.extra")  # where components of kinds without a section of their own are explained
INSIDE = {"inner optimizer": "train.optimizer"}  # kinds of which one is chosen for the run, inside a section
SECTION_OF = {KIND_OF[hint]: name for name, hint in HINTS.items() if hint in KIND_OF} | INSIDE  # kind → where it is


@dataclass(frozen=True)
class Key:
    """A field, as a config has it."""

    name: str
    type: str  # in words
    default: str  # as YAML, or `required`
    meaning: str  # the comment beside it; empty if there is none
    hint: Any  # its annotation


@dataclass(frozen=True)
class Topic:
    """A section, a component or a key: what it is for, what can be set, and what can be chosen."""

    path: str  # `policy`, `policy.halos`, `policy.halos.outer`
    text: str  # its class's docstring, or what the comment at the key says
    note: str = ""  # where a component comes from; what a section is if it is left out
    keys: tuple[Key, ...] = ()
    components: tuple[Component, ...] = ()


class Topics:
    """All there is to explain with these plugins.

    A topic is named as in a config: a section (`train`), what can be chosen there (`policy.halos`) or a key
    (`train.optimizer.lr`), and so on inside. Merge rules have no section of their own: `merge_rule.nesterov`.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._builder = Builder(plugins)

    def find(self, what: str) -> Topic:
        """Return the topic named `what`, keys joined by dots. Raises ConfigError where the name leads nowhere."""
        first, *rest = what.split(".")
        kinds = {kind.replace(" ", "_"): protocol for kind, (protocol, _) in KINDS.items()}
        hint = HINTS.get(first, kinds.get(first))
        if hint is None:
            known = [*HINTS, *(kind.replace(" ", "_") for kind in KINDS if kind not in SECTION_OF)]
            near = did_you_mean(first, [*known, *kinds])
            raise ConfigError("--explain", f"no section is called {shown(first)}{near}; there are: {', '.join(known)}")
        path, key = first, self._key(Config, first) if first in HINTS else None
        for word in rest:
            hint, key = self._inside(hint, word, path)
            path += f".{word}"
        return self._topic(path, hint, key)

    def everything(self, origin: Optional[str] = None) -> Iterator[Topic]:
        """Yield all topics but single keys, sections in order; only components from `origin`, if one is given."""
        for name in HINTS:
            yield from self._below(name, HINTS[name], self._key(Config, name), origin)
            if name == "policy":
                yield from self._below("merge_rule", KINDS["merge rule"][0], None, origin)
            if name == "observers":
                yield from self._below("observers.extra", KINDS["observer"][0], None, origin)

    def keys(self, cls: type[Any]) -> tuple[Key, ...]:
        """Return the fields of a dataclass, its own before those of its bases. Raises ConfigError if unreadable."""
        try:
            hints = typing.get_type_hints(cls)
        except Exception as error:  # an annotation is any expression
            what = f"{cls.__module__}.{cls.__qualname__}"
            raise ConfigError("--explain", f"the annotations of {what} cannot be read: {error}") from None
        own, said = inspect.get_annotations(cls), meanings(cls)
        fields = sorted(
            (field for field in dataclasses.fields(cls) if field.init), key=lambda field: field.name not in own
        )
        return tuple(
            Key(field.name, self._words(hints[field.name]), self._default(field, hints[field.name]),
                said.get(field.name, ""), hints[field.name])
            for field in fields
        )  # fmt: skip

    def _key(self, cls: type[Any], name: str) -> Key:
        return next(key for key in self.keys(cls) if key.name == name)

    def _words(self, hint: Any) -> str:
        """Return in words what an annotation allows, without the names of components: these are topics of their own."""
        return re.sub(r": \{name: …\}, one of \w+(, \w+)*", "", self._builder.describe(hint))

    def _default(self, field: dataclasses.Field[Any], hint: Any) -> str:
        if dataclasses.is_dataclass(hint):
            return "that of its keys"
        if field.default_factory is not dataclasses.MISSING:
            return flow(to_sections(field.default_factory(), self._plugins))
        return REQUIRED if field.default is dataclasses.MISSING else flow(to_sections(field.default, self._plugins))

    def _inside(self, hint: Any, word: str, path: str) -> tuple[Any, Optional[Key]]:
        """Follow `word` from `path`: return a component's class and None, or a key's annotation and the key.

        Raises ConfigError if it leads nowhere.
        """
        inner = _inner(hint)
        if inner in KIND_OF:
            return self._component(KIND_OF[inner], word, path), None
        if not dataclasses.is_dataclass(inner):
            raise ConfigError("--explain", f"{path} is {self._words(hint)}, and has no {shown(word)}")
        assert isinstance(inner, type), "annotations name classes"
        keys = {key.name: key for key in self.keys(inner)}
        if word not in keys:
            known = ", ".join(sorted(keys)) or "none"
            near = did_you_mean(word, keys)
            raise ConfigError("--explain", f"{path} has no key {shown(word)}{near}; there are: {known}")
        return keys[word].hint, keys[word]

    def _component(self, kind: str, name: str, path: str) -> type[Any]:
        known = self._plugins.components[kind]
        if name in known:
            return known[name].cls
        having = [
            component.name
            for component in known.values()
            if name in {field.name for field in dataclasses.fields(component.cls)}
        ]
        near = f" ({path}.{having[0]}.{name}?)" if having else did_you_mean(name, known)
        raise ConfigError(
            "--explain", f"no {kind} is called {shown(name)}{near}; installed: {', '.join(sorted(known))}; {ADD}"
        )

    def _topic(self, path: str, hint: Any, key: Optional[Key]) -> Topic:
        inner = _inner(hint)
        if inner in KIND_OF:
            kind = KIND_OF[inner]
            components = sorted(self._plugins.components[kind].values(), key=lambda component: component.name)
            section = SECTION_OF.get(kind) == path
            return Topic(
                path,
                inspect.getdoc(getattr(hookspecs, KINDS[kind][1])) or "" if section or key is None else key.meaning,
                _if_left_out(path) if path in HINTS else "" if key is None else _of(key),
                components=tuple(components),
            )
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            name = self._plugins.name_of(inner)
            origins = [
                component.origin
                for known in self._plugins.components.values()
                for component in known.values()
                if component.cls is inner and component.name == name
            ]
            note = f"from {origins[0]}" if origins and origins[0] != "halos" else ""
            return Topic(path, docstring(inner), note, self.keys(inner))
        assert key is not None, "what is neither a component nor a section is a key"
        return Topic(path, key.meaning, _of(key))

    def _below(self, path: str, hint: Any, key: Optional[Key], origin: Optional[str]) -> Iterator[Topic]:
        topic = self._topic(path, hint, key)
        yield topic
        for component in topic.components if path in (*HINTS, *UNCHOSEN, *INSIDE.values()) else ():
            if origin in (None, component.origin):
                yield from self._below(f"{path}.{component.name}", component.cls, None, origin)
        for inside in topic.keys:
            where = f"{path}.{inside.name}"
            if dataclasses.is_dataclass(_inner(inside.hint)) or where in INSIDE.values():
                yield from self._below(where, inside.hint, inside, origin)


def flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _inner(hint: Any) -> Any:
    """Return the dataclass or component protocol inside `Optional[…]`, a list or a dict; `hint` itself if none is."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint
    for argument in typing.get_args(hint):
        inner = _inner(argument)
        if inner in KIND_OF or dataclasses.is_dataclass(inner):
            return inner
    return hint


def _of(key: Key) -> str:
    return f"{key.type}; {key.default if key.default == REQUIRED else f'default: {key.default}'}"


def _if_left_out(section: str) -> str:
    return f"default: {DEFAULTS[section]['name']}" if section in DEFAULTS else REQUIRED
