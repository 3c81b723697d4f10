"""Paths in configurations: texts remember the folder of the file they were written in, and are looked for there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class Written(str):
    """A text that was written in a config file."""

    folder: Path  # of that file


def written(value: Any, folder: Path) -> Any:
    """Return `value`, in which every text remembers `folder`."""
    if isinstance(value, dict):
        return {key: written(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [written(item, folder) for item in value]
    if isinstance(value, str):
        text = Written(value)
        text.folder = folder
        return text
    return value


def plain(value: Any) -> Any:
    """Return `value` with plain texts, which remember nothing."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return str(value) if isinstance(value, str) else value


def absolute(text: str) -> str:
    """Return the absolute path that `text`, which is not empty, means.

    A relative one that was written in a file is looked for beside that first, and then in the working directory: as
    it is, or as the beginning of several names, up to a dot (`corpus` for `corpus.bin` and `corpus.idx`).
    """
    text, folder = os.path.expanduser(text), getattr(text, "folder", None)
    here = os.path.abspath(text)
    if folder is None or os.path.isabs(text):
        return here
    beside = os.path.abspath(os.path.join(folder, text))
    if os.path.exists(beside) or (_begins_names(beside) and not os.path.exists(here)):
        return beside
    return here


def _begins_names(path: str) -> bool:
    """Whether something in its folder is called like `path`, with a dot and more behind it."""
    folder, name = os.path.split(path)
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        return any(entry.name.startswith(f"{name}.") for entry in entries)
    return False
