"""`python -m halos.compare`."""

from __future__ import annotations

from halos.compare.cli import command

if __name__ == "__main__":
    command()
