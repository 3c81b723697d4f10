"""`python -m halos.run`, which is `halos`."""

from __future__ import annotations

from halos.run.cli import command

if __name__ == "__main__":
    command()
