"""What can be explained of a configuration: its sections, components and keys, read from the classes themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import yaml

from halos.config.builder import Builder, to_sections
from halos.config.comments import meanings
from halos.config.config import Config
from halos.config.layers import DEFAULTS
from halos.errors import ConfigError, did_you_mean, shown
from halos.plugins import hookspecs
from halos.plugins.registry import KINDS, Component, Plugins

REQUIRED = "required"
KIND_OF = {protocol: kind for kind, (protocol, _) in KINDS.items()}
HINTS = typing.get_type_hints(Config)
SECTION_OF = {KIND_OF[hint]: name for name, hint in HINTS.items() if hint in KIND_OF}  # kind → section


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
        """The topic of that name; a ConfigError that says where the name leads nowhere."""
        first, *rest = what.split(".")
        kinds = {kind.replace(" ", "_"): protocol for kind, (protocol, _) in KINDS.items()}
        hint = HINTS.get(first, kinds.get(first))
        if hint is None:
            known = [*HINTS, *(kind.replace(" ", "_") for kind in KINDS if kind not in SECTION_OF)]
            near = did_you_mean(first, [*known, *kinds])
            raise ConfigError("--explain", f"no section is called {shown(first)}; there are: {', '.join(known)}{near}")
        path, key = first, self._key(Config, first) if first in HINTS else None
        for word in rest:
            hint, key = self._inside(hint, word, path)
            path += f".{word}"
        return self._topic(path, hint, key)

    def everything(self, origin: Optional[str] = None) -> Iterator[Topic]:
        """All topics but single keys, sections in order; only components from `origin`, if one is given."""
        for name in HINTS:
            yield from self._below(name, HINTS[name], self._key(Config, name), origin)
            if name == "policy":
                yield from self._below("merge_rule", KINDS["merge rule"][0], None, origin)

    def keys(self, cls: type[Any]) -> tuple[Key, ...]:
        """The fields of a dataclass; its own before those of its bases."""
        try:
            hints = typing.get_type_hints(cls)
        except Exception as error:  # an annotation is any expression
            what = f"{cls.__module__}.{cls.__qualname__}"
            raise ConfigError("--explain", f"the annotations of {what} cannot be read: {error}") from None
        own, said = inspect.get_annotations(cls), meanings(cls)
        fields = sorted((each for each in dataclasses.fields(cls) if each.init), key=lambda each: each.name not in own)
        return tuple(
            Key(each.name, self._words(hints[each.name]), self._default(each, hints[each.name]),
                said.get(each.name, ""), hints[each.name])
            for each in fields
        )  # fmt: skip

    def _key(self, cls: type[Any], name: str) -> Key:
        return next(each for each in self.keys(cls) if each.name == name)

    def _words(self, hint: Any) -> str:
        """What an annotation allows, in words; which components there are is a topic of its own."""
        return re.sub(r": \{name: …\}, one of \w+(, \w+)*", "", self._builder.describe(hint))

    def _default(self, field: dataclasses.Field[Any], hint: Any) -> str:
        if dataclasses.is_dataclass(hint):
            return "that of its keys"
        if field.default_factory is not dataclasses.MISSING:
            return flow(to_sections(field.default_factory(), self._plugins))
        return REQUIRED if field.default is dataclasses.MISSING else flow(to_sections(field.default, self._plugins))

    def _inside(self, hint: Any, word: str, path: str) -> tuple[Any, Optional[Key]]:
        """What `word` leads to at `path`: a component's class, or a key and its annotation."""
        inner = _inner(hint)
        if inner in KIND_OF:
            return self._component(KIND_OF[inner], word, path), None
        if not dataclasses.is_dataclass(inner):
            raise ConfigError("--explain", f"{path} is {self._words(hint)}, and has no {shown(word)}")
        assert isinstance(inner, type), "annotations name classes"
        keys = {each.name: each for each in self.keys(inner)}
        if word not in keys:
            known = ", ".join(sorted(keys)) or "none"
            near = did_you_mean(word, keys)
            raise ConfigError("--explain", f"{path} has no key {shown(word)}; there are: {known}{near}")
        return keys[word].hint, keys[word]

    def _component(self, kind: str, name: str, path: str) -> type[Any]:
        known = self._plugins.components[kind]
        if name in known:
            return known[name].cls
        having = [each.name for each in known.values() if name in {one.name for one in dataclasses.fields(each.cls)}]
        near = f" ({path}.{having[0]}.{name}?)" if having else did_you_mean(name, known)
        raise ConfigError(
            "--explain", f"no {kind} is called {shown(name)}; installed: {', '.join(sorted(known))}{near}"
        )

    def _topic(self, path: str, hint: Any, key: Optional[Key]) -> Topic:
        inner = _inner(hint)
        if inner in KIND_OF:
            kind = KIND_OF[inner]
            components = sorted(self._plugins.components[kind].values(), key=lambda each: each.name)
            section = SECTION_OF.get(kind) == path
            return Topic(
                path,
                inspect.getdoc(getattr(hookspecs, KINDS[kind][1])) or "" if section or key is None else key.meaning,
                _if_left_out(path) if section else "" if key is None else _of(key),
                components=tuple(components),
            )
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            name = self._plugins.name_of(inner)
            origins = [each.origin for known in self._plugins.components.values() for each in known.values()
                       if each.cls is inner and each.name == name]  # fmt: skip
            note = f"from {origins[0]}" if origins and origins[0] != "halos" else ""
            return Topic(path, docstring(inner), note, self.keys(inner))
        assert key is not None, "what is neither a component nor a section is a key"
        return Topic(path, key.meaning, _of(key))

    def _below(self, path: str, hint: Any, key: Optional[Key], origin: Optional[str]) -> Iterator[Topic]:
        topic = self._topic(path, hint, key)
        yield topic
        for each in topic.components if path in (*HINTS, "merge_rule") else ():
            if origin in (None, each.origin):
                yield from self._below(f"{path}.{each.name}", each.cls, None, origin)
        for inside in topic.keys:
            if dataclasses.is_dataclass(_inner(inside.hint)):
                yield from self._below(f"{path}.{inside.name}", inside.hint, inside, origin)


def docstring(cls: type[Any]) -> str:
    """What its author (or that of a base) wrote; not what `dataclass` puts there otherwise."""
    for each in cls.__mro__[:-1]:
        text = inspect.cleandoc(each.__dict__.get("__doc__") or "")
        if text and not text.startswith(f"{each.__name__}("):
            return text
    return ""


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _inner(hint: Any) -> Any:
    """What is inside `Optional[…]`, a list, or the values of a dict, if it has keys or can be chosen."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint
    for each in typing.get_args(hint):
        inner = _inner(each)
        if inner in KIND_OF or dataclasses.is_dataclass(inner):
            return inner
    return hint


def _of(key: Key) -> str:
    return f"{key.type}; {key.default if key.default == REQUIRED else f'default: {key.default}'}"


def _if_left_out(section: str) -> str:
    return f"default: {DEFAULTS[section]['name']}" if section in DEFAULTS else REQUIRED
