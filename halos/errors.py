"""What can go wrong, as types: a user's mistake, a lost message, a run that cannot go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """A mistake the user can mend; shown as one line, exit code 2, no traceback."""


class ConfigError(UserError, ValueError):
    """A configuration value that cannot be used.

    `key` is relative to whoever raises it (a dataclass names its own field); the loader puts the
    section's key in front, so the user sees the full one.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem

    def under(self, section: str) -> ConfigError:
        """The same mistake, with its key seen from the section's parent."""
        key = ".".join(part for part in (section, self.key) if part)
        return ConfigError(key, self.problem)


@contextmanager
def under(section: str) -> Iterator[None]:
    """Whatever UserError is raised inside is one of `section`: its key gets that in front."""
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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name nearest to `name`, or nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise a ConfigError for `key` unless `condition`; `expected` says what would be right."""
    if not condition:
        raise ConfigError(key, f"{shown(value)} is not {expected}")


def shown(value: Any) -> str:
    """A value as an error message quotes it: what was written, but not pages of it."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}… ({len(text)} characters)"
