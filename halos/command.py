"""The parts that the commands share: exit codes, and mistakes that are one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from halos.errors import UserError

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A mistake on the command line is one line, like every other."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message}; see: {self.prog} --help\n")


def mistake(error: UserError) -> int:
    """Tell the user; returns the exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return MISTAKE
