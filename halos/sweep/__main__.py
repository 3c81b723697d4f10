"""`python -m halos.sweep`."""

from __future__ import annotations

from halos.sweep.cli import command

if __name__ == "__main__":
    command()
