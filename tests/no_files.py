"""What may be where a file should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere/at/all")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def not_for_us(path: Path, mode: int, content: bytes = b"") -> None:
    """A file that only root may read (or write)."""
    if os.geteuid() == 0:
        pytest.skip("root may read and write everything")
    path.write_bytes(content)
    path.chmod(mode)
