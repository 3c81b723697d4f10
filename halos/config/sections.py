"""From dataclasses back to plain sections, as `config.yaml` holds them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from halos.config.references import escaped
from halos.config.yaml_text import Section
from halos.plugins.registry import Plugins


def to_sections(value: Any, plugins: Plugins) -> Any:
    """A resolved configuration as plain sections again: what `config.yaml` holds, and can be run from.

    Texts are escaped, so that no `${…}` in one is taken for a reference.
    """
    return _escaped(sections_of(value, plugins))


def sections_of(value: Any, plugins: Plugins) -> Any:
    """The same, with texts as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        section: Section = {
            field.name: sections_of(getattr(value, field.name), plugins)
            for field in dataclasses.fields(value)
            if field.init
        }
        name = plugins.name_of(type(value))
        return section if name is None else {"name": name, **section}
    if isinstance(value, (list, tuple)):
        return [sections_of(item, plugins) for item in value]
    if isinstance(value, dict):
        return {key: sections_of(item, plugins) for key, item in value.items()}
    return os.path.abspath(value) if isinstance(value, Path) else value


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value
