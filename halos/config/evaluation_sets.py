"""What evaluation sets take over from `data`, so that their losses are measured alike."""

from __future__ import annotations

import dataclasses
from typing import Any

from halos.config.layers import layered, merge
from halos.config.written import Layer, at
from halos.config.yaml_text import Section
from halos.errors import UserError
from halos.plugins.registry import Plugins

# Fields of data sources that make what is measured; not those about training, or about the files themselves.
INHERITED = ("sequence_length", "validation_samples", "shuffle", "seed", "split_seed", "tokenizer")


def inheriting(section: Section, plugins: Plugins) -> Section:
    """Return the merged sections, each of `evaluate.sets` with what `data` says (or has by default) below its own.

    As no set is trained on, all of it may be evaluated. What is no section is left as it is, to be refused by others.
    """
    evaluate, data = section.get("evaluate"), _section(section.get("data"))
    sets = evaluate.get("sets") if isinstance(evaluate, dict) else None
    ours = _fields(data, plugins)
    if not isinstance(sets, dict) or not ours:
        return section
    values = {key: at(data, key) if key in data else ours[key].default for key in INHERITED if key in ours}
    values = {key: value for key, value in values.items() if value is not dataclasses.MISSING} | {"hold_out": False}
    made = {}
    for name, own in sets.items():
        theirs = _fields(_section(own), plugins)
        below = {key: value for key, value in values.items() if key in theirs}
        made[name] = layered(below, _section(own)) if theirs else own
    return merge(section, {"evaluate": {"sets": made}})


def _section(value: Any) -> Section:
    if isinstance(value, str):
        return Layer([("name", value)])
    return value if isinstance(value, dict) else {}


def _fields(section: Section, plugins: Plugins) -> dict[str, dataclasses.Field[Any]]:
    """The fields of the data source that a section names; none if there is no such source."""
    try:
        cls = plugins.find("data source", str(section.get("name", "")))
    except UserError:
        return {}
    return {field.name: field for field in dataclasses.fields(cls) if field.init}
