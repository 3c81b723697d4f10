"""Which files a path, a folder or a list of them stands for, in an order that depends on names alone."""

from __future__ import annotations

import fnmatch
import os
import stat
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, NoReturn, Optional, TypeAlias, Union

from halos.errors import ConfigError, from_here, shown

EXTRA = "run: pip install halos-simulator[text]"  # what some files need
STDLIB: Final = "stdlib"
NOT_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # what is no program a person reads
Source: TypeAlias = Union[Literal["stdlib"], Path]


class File(NamedTuple):
    """A file that is not empty."""

    name: str  # relative to the path it was found by, with slashes
    path: str
    size: int  # bytes
    source: int  # the entry below the path that it lies in or, of several paths, the path
    named: bool  # given by its own path, not found in a folder


def find(paths: Sequence[Source], pattern: Optional[str]) -> list[File]:
    """Return all files, those in folders only if their names match. Raises ConfigError for a path that has none."""
    files: list[File] = []
    entries: dict[str, int] = {}
    for number, path in enumerate(paths):
        found = _files(path, pattern)
        if not found:
            none = "no file matches" if pattern is None else f"no file matches {shown(pattern)}"
            raise ConfigError("path", f"{from_here(path)!r} holds no readable text: {none}, or all are empty")
        for name, file, size in found:
            entry = name.split("/")[0]
            source = number if len(paths) > 1 else entries.setdefault(entry, len(entries))
            files.append(File(name, file, size, source, named=file == from_here(path)))
    return files


def unreadable(error: OSError) -> NoReturn:
    """Raise the ConfigError that says which file cannot be read, and why."""
    raise ConfigError("path", f"{error.filename!r} cannot be read: {error.strerror}") from None


def _files(path: Source, pattern: Optional[str]) -> list[tuple[str, str, int]]:
    """Name (relative, with slashes), file and size of every file that is not empty."""
    root, skipped, pattern = from_here(path), {"__pycache__"}, pattern or ("*.py" if path == STDLIB else "*")
    if path == STDLIB:
        root, skipped = sysconfig.get_path("stdlib"), skipped | NOT_STDLIB
    if not os.path.exists(root):
        raise ConfigError("path", f"{root!r} does not exist")
    names = list(_below(root, skipped, pattern)) if os.path.isdir(root) else [""]
    found = []
    for name in names:
        file = os.path.join(root, name) if name else root
        try:
            status = os.stat(file)
        except FileNotFoundError:
            continue  # a link to nowhere
        except OSError as error:
            unreadable(error)
        if stat.S_ISREG(status.st_mode) and status.st_size:  # reading a pipe would wait for ever
            found.append(((name or os.path.basename(root)).replace(os.sep, "/"), file, status.st_size))
    return sorted(found)


def _below(root: str, skipped: Collection[str], pattern: str) -> Iterator[str]:
    """The files in a folder and its folders (links to others are not followed), by relative name.

    Not `os.walk`, which recurses before Python 3.12: folders may be deeper than that goes.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
                inside = {entry.name for entry in visible if entry.is_dir(follow_symlinks=False)}
        except OSError as error:
            unreadable(error)
        folders += [os.path.join(folder, name) for name in inside - set(skipped)]
        names = [entry.name for entry in visible if entry.name not in inside]
        yield from (os.path.join(folder, name) for name in fnmatch.filter(names, pattern))
