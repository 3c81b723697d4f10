"""A section with every default written out: what `${…}` may refer to."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Union

from halos.config.builder import KIND_OF, Builder
from halos.config.sections import to_sections
from halos.config.written import Items, Layer, inside
from halos.config.written import others as of_others
from halos.plugins.registry import Plugins


class Defaults:
    """Adds to sections what they leave out, as far as it is known which class they are of; nothing is refused here."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._builder = Builder(plugins)

    def under(self, hint: Any, value: Any) -> Any:
        """Return `value`, which is for the annotation `hint`, on top of the defaults of all keys in it."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (Union, types.UnionType):
            for argument in arguments:
                filled = self.under(argument, value)
                if filled is not value:
                    return filled
        elif hint in KIND_OF:
            section = Layer([("name", value)]) if isinstance(value, str) else value
            known = self._plugins.components[KIND_OF[hint]]
            name = section.get("name") if isinstance(section, dict) else None
            return self._section(known[name].cls, section) if isinstance(name, str) and name in known else value
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
            return self._section(hint, value)
        elif origin in (list, Sequence) and isinstance(value, list):
            return Items(self.under(arguments[0], item) for _, item in inside(value))
        elif origin is dict and isinstance(value, dict):
            return Layer((key, self.under(arguments[1], item)) for key, item in inside(value))
        return value

    def _section(self, cls: type[Any], section: dict[str, Any]) -> Layer:
        filled = dict(inside(section))
        try:
            hints = typing.get_type_hints(cls)
        except Exception:  # an annotation is any expression; the builder says what is wrong with it
            return Layer(filled.items(), of_others(section))
        for field in (each for each in dataclasses.fields(cls) if each.init):
            hint, name = hints[field.name], field.name
            if name not in filled and field.default is not dataclasses.MISSING:
                filled[name] = to_sections(field.default, self._plugins)
            elif name not in filled and field.default_factory is not dataclasses.MISSING:
                filled[name] = to_sections(field.default_factory(), self._plugins)
            elif name not in filled and dataclasses.is_dataclass(hint):
                filled[name] = Layer()
            if name in filled:
                filled[name] = self.under(hint, self._builder.on_default(hint, filled[name], field))
        return Layer(filled.items(), of_others(section))
