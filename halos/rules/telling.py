"""Merge rules that tell of their steps, for those who measure: where somebody listens, and while a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

from halos.values.params import Params
from halos.values.records import Merge


@contextmanager
def telling(component: Any, now: Callable[[], float], tell: Callable[[Merge], None]) -> Iterator[None]:
    """Let the merge rules that `component` has in its fields `tell` of every step, until the body is through.

    A rule stays the object, and of the class, that it was: its instance has a `step` of its own meanwhile. One that
    takes no attributes (`__slots__`) is not heard, nor is a rule inside another, whose step is no whole one.
    """
    rules = {id(rule): rule for rule in merge_rules(component)}.values()
    heard = []
    try:
        for rule in rules:
            try:
                object.__setattr__(rule, "step", _told(rule, rule.step, now, tell))  # as most are frozen
            except (AttributeError, TypeError):
                continue
            heard.append(rule)
        yield
    finally:
        for rule in heard:
            object.__delattr__(rule, "step")


def merge_rules(component: Any) -> Iterator[Any]:
    """Yield the merge rules in the fields of a dataclass, at any depth, but none inside another."""
    if isinstance(component, (list, tuple)):
        several = [*component]
    elif isinstance(component, dict):
        several = [*component.values()]
    elif is_dataclass(component) and not isinstance(component, type):
        several = [getattr(component, field.name, None) for field in fields(component)]
    else:
        return
    for value in several:
        if is_merge_rule(value):
            yield value
        else:
            yield from merge_rules(value)


def is_merge_rule(value: Any) -> bool:
    """Whether it has the two methods of a merge rule."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "step"))


def _told(
    rule: Any, step: Callable[..., tuple[Params, Any]], now: Callable[[], float], tell: Callable[[Merge], None]
) -> Callable[..., tuple[Params, Any]]:
    @wraps(step)
    def told(params: Params, delta: Params, state: Any, **more: Any) -> tuple[Params, Any]:
        after, following = step(params, delta, state, **more)
        tell(Merge(now(), rule, params, delta, state, after, lambda other: step(params, other, state, **more)[0]))
        return after, following

    return told
