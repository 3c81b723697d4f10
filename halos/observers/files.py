"""Files that are written whole or not at all, their errors one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halos.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into one clear line about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; what was written before is intact"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which then becomes `path` at once; or, on an error, is removed."""
    temporary = path.with_name(path.name + ".part")
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
