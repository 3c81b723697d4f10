"""What was written: texts that know in which file, sections and lists that know how their values were spelled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union


class Written(str):
    """A text that was written in a config file."""

    folder: Path  # of that file


class Spelled(NamedTuple):
    """A number, true, false or null together with its text: which of the two is meant, a field's annotation says."""

    value: Any
    text: str  # `007`, `1.10`, `no`; empty where nothing is written


class Layer(dict[str, Any]):
    """A section as it was written. It is equal to a plain one that holds the same values."""

    def __init__(self, items: Iterable[tuple[str, Any]] = (), others: Optional[Mapping[str, str]] = None) -> None:
        super().__init__()
        self.spelled: dict[str, str] = {}  # by key, where the text is not the value
        for key, value in items:
            self.put(key, value)
        # Keys that were written while the section named another component (or none, ""): the name of that.
        self.others: dict[str, str] = dict(others or {})

    def put(self, key: str, value: Any) -> None:
        """Set a value, which may be spelled."""
        self[key] = value.value if isinstance(value, Spelled) else value
        self.spelled.pop(key, None)
        if isinstance(value, Spelled):
            self.spelled[key] = value.text


class Items(list[Any]):
    """A list as it was written, equal to a plain one."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__()
        self.spelled: dict[int, str] = {}
        for index, value in enumerate(values):
            self.append(value.value if isinstance(value, Spelled) else value)
            if isinstance(value, Spelled):
                self.spelled[index] = value.text


def at(inside: Union[dict[Any, Any], list[Any]], key: Any) -> Any:
    """Return the value at `key`, spelled if it is known how."""
    spelled = inside.spelled if isinstance(inside, (Layer, Items)) else {}
    return Spelled(inside[key], spelled[key]) if key in spelled else inside[key]


def inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield keys (or positions) and values, spelled where it is known how; nothing for what holds none."""
    if isinstance(value, dict):
        yield from ((key, at(value, key)) for key in value)
    elif isinstance(value, list):
        yield from ((index, at(value, index)) for index in range(len(value)))


def as_text(value: Any) -> Any:
    """Return a value as the text that is written there, where a text is meant and nothing else; else as it is."""
    return (value.text or value.value) if isinstance(value, Spelled) else value


def others(section: Any) -> dict[str, str]:
    """Return the keys of a section that were written of another component, and its name."""
    return section.others if isinstance(section, Layer) else {}


def written(value: Any, folder: Path) -> Any:
    """Return `value`, in which every text remembers `folder`."""
    if isinstance(value, dict):
        return Layer(((key, written(inner, folder)) for key, inner in inside(value)), others(value))
    if isinstance(value, list):
        return Items(written(item, folder) for _, item in inside(value))
    if isinstance(value, str):
        text = Written(value)
        text.folder = folder
        return text
    return value


def plain(value: Any) -> Any:
    """Return `value` as plain values, which remember nothing."""
    if isinstance(value, Spelled):
        return value.value
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(map(plain, value))
    return str(value) if isinstance(value, str) else value


def texts(value: Any) -> Any:
    """Return `value` with single values as they are spelled: for what is put together to a text."""
    if isinstance(value, Spelled):
        return value.text or texts(value.value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return {key: texts(inner) for key, inner in inside(value)}
    if isinstance(value, list):
        return [texts(inner) for _, inner in inside(value)]
    return str(value) if isinstance(value, str) else value
