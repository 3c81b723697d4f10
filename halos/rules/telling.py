"""Merge rules that tell of their steps, for those who measure: where somebody listens, and while a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

from halos.values.params import Params
from halos.values.records import Merge

GIVEN = ("params", "delta", "state")  # to a merge rule's step, in this order


@contextmanager
def telling(component: Any, now: Callable[[], float], tell: Callable[[Merge], None]) -> Iterator[None]:
    """Let the merge rules that `component` has in its fields `tell` of every step, until the body is through.

    A rule stays the object, and of the class, that it was: its instance has a `step` of its own meanwhile. One that
    takes no attributes (`__slots__`) is not heard, nor is a rule inside another, whose step is no whole one. What is
    called in another way than a merge rule, or returns something else, is left to it.
    """
    rules = {id(rule): rule for rule in merge_rules(component)}.values()
    heard = []
    try:
        for rule in rules:
            step, own = rule.step, "step" in getattr(rule, "__dict__", {})
            try:
                object.__setattr__(rule, "step", _told(rule, step, now, tell))  # as most are frozen
            except (AttributeError, TypeError):
                continue
            heard.append((rule, step, own))
        yield
    finally:
        for rule, step, own in heard:
            if own:
                object.__setattr__(rule, "step", step)
            else:
                object.__delattr__(rule, "step")


def merge_rules(component: Any, within: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Yield the merge rules in the fields of a dataclass, at any depth, but none inside another."""
    if id(component) in within:  # it holds itself
        return
    within |= {id(component)}
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
            yield from merge_rules(value, within)


def is_merge_rule(value: Any) -> bool:
    """Whether it has the two methods of a merge rule."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "step"))


def _told(
    rule: Any, step: Callable[..., tuple[Params, Any]], now: Callable[[], float], tell: Callable[[Merge], None]
) -> Callable[..., tuple[Params, Any]]:
    @wraps(step)
    def told(*given: Any, **more: Any) -> tuple[Params, Any]:
        stepped = step(*given, **more)
        known = {**dict(zip(GIVEN, given)), **{name: more[name] for name in GIVEN if name in more}}

        def again(other: Params) -> Params:
            if "delta" in more:
                return step(*given, **{**more, "delta": other})[0]
            return step(given[0], other, *given[2:], **more)[0]

        after = stepped[0] if isinstance(stepped, tuple) and len(stepped) == 2 else None
        several = (known.get("params"), known.get("delta"), after)
        if len(known) == len(GIVEN) and all(isinstance(each, Params) for each in several):
            tell(Merge(now(), rule, **known, after=after, again=again))
        return stepped

    return told
