"""Errors as types: a user's mistake, a lost message, a run that cannot go on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import islice
from typing import Any

MESSAGE_LENGTH = 2000  # characters of a message: nobody reads more, whatever a file holds


class UserError(Exception):
    """A mistake the user can mend; shown as one line, exit code 2, no traceback."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}…"


class ConfigError(UserError, ValueError):
    """A configuration value that cannot be used.

    `key` is relative to whoever raises it (a dataclass names its own field); the loader puts the
    section's key in front, so the user sees the full one.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return type(self), (self.key, self.problem)

    def under(self, section: str) -> ConfigError:
        """Return the same mistake, with its key seen from the section's parent."""
        key = ".".join(part for part in (section, self.key) if part)
        return ConfigError(key, self.problem)


@contextmanager
def under(section: str) -> Iterator[None]:
    """Put `section` in front of the key of any UserError raised inside; MemoryError becomes ConfigError too."""
    try:
        yield
    except ConfigError as error:
        raise error.under(section) from None
    except UserError as error:
        raise ConfigError(section, str(error)) from None
    except MemoryError as error:
        raise ConfigError(section, f"needs more memory than there is: {error}") from None


class Lost(Exception):
    """A job, transfer or collective that will never arrive; raised in whoever awaits it.

    Raised at the virtual time (seconds) at which the loss is *detected*.
    """

    def __init__(self, who: str, when: float, why: str) -> None:
        super().__init__(f"{who} lost at {when:.6g} s: {why}")
        self.who = who
        self.when = when
        self.why = why


class Diverged(Exception):
    """A loss that is no finite number any more; the run stops, keeping what it recorded."""


class Died(Exception):
    """Processes that a run needs were ended by somebody else; the run stops, keeping what it recorded."""


def in_a_line(error: BaseException) -> str:
    """Return an error's own words in one line; its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name nearest to `name`; empty if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise a ConfigError for `key` unless `condition`; `expected` says what would be right."""
    if not condition:
        raise ConfigError(key, f"{shown(value)} is not {expected}")


def from_here(path: str | os.PathLike[str]) -> str:
    """Return a path as messages have it: relative to the working directory, if it lies in that."""
    text = os.fspath(path)
    here = os.path.join(os.getcwd(), "")
    return os.path.relpath(text, here) if os.path.join(text, "").startswith(here) else text


def shown(value: Any) -> str:
    """Return a value as an error message quotes it: its `repr` (but `null`, `true`, `false`), cut off if it is long."""
    pieces = list(islice(_pieces(value), 101))
    text = "".join(pieces)
    if len(text) <= 100:
        return text
    return f"{text[:60]}…" if len(pieces) > 100 else f"{text[:60]}… ({len(text)} characters)"


def _pieces(value: Any) -> Iterator[str]:
    """Yield it piece by piece: lists that hold each other many times over would fill the memory."""
    if type(value) in (list, tuple):
        before = "[" if isinstance(value, list) else "("
        for item in value:
            yield before
            yield from _pieces(item)
            before = ", "
        yield (
            {"[": "[]", "(": "()"}.get(before) or ("]" if isinstance(value, list) else ")" if len(value) > 1 else ",)")
        )
    elif type(value) is dict:
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            yield f"{', ' if index else ''}{key!r}: "
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, int) and value.bit_length() > 10_000:  # Python refuses to write these out
        yield f"a number of {value.bit_length()} bits"
    elif value is None or isinstance(value, bool):
        yield json.dumps(value)  # as a config has them
    else:
        yield repr(value)


def positive(value: Any) -> bool:
    """Whether `value` is a number above zero, and one that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
