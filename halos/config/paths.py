"""Paths as users give them, in a file or on the command line: what they mean, by one rule."""

from __future__ import annotations

import os
from contextlib import suppress


def expanded(text: str) -> str:
    """Return a path with the home folder in the place of `~` (or somebody's of `~name`) at its beginning."""
    return os.path.expanduser(text)


def absolute(text: str) -> str:
    """Return the absolute path that `text`, which is not empty, means; `~` is the home folder.

    A relative one that was written in a file is looked for beside that first, and then in the working directory: as
    it is, or as the beginning of several names, up to a dot (`corpus` for `corpus.bin` and `corpus.idx`).
    """
    text, folder = expanded(text), getattr(text, "folder", None)
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
