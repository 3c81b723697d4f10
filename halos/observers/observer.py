"""Observers: who is told what happens in a run, and writes, counts or shows it."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """A listener: any dataclass with methods marked `@hookimpl` and named after event hooks, and there must be one.

    It is turned on by `observers.extra`, and told after the built-in ones. The run must not depend on it: it changes
    nothing, and keeps no parameters. Whatever it raises ends the run, a UserError with one line; one from `on_start`
    leaves no folder. A resumed run tells it everything again from the beginning, up to `on_resume`; until then,
    parameters are hollow (their norms are NaN, while what records hold as numbers is what it was), and nothing that is
    there may be touched.
    """
