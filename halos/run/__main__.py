"""`python -m halos.run`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # the working directory: a plugin file there may be called as a library's module

    from halos.run.cli import command

    command()
