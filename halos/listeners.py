"""Listeners: who hears of what happens, bound once per run, since a timing run tells them a million times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

from halos.records import Commit, Evaluation, Transfer, Update


class Listeners:
    """The `on_*` hooks as plain callables; whoever registers after `bind` is not heard."""

    def __init__(self, hook: pluggy.HookRelay) -> None:
        self._hook = hook
        self.bind()

    def bind(self) -> None:
        """Look up who listens: once, before the first record."""
        hook = self._hook
        self.update: Callable[[Update], None] = _bound(hook.on_update, "update")
        self.transfer: Callable[[Transfer], None] = _bound(hook.on_transfer, "transfer")
        self.commit: Callable[[Commit], None] = _bound(hook.on_commit, "commit")
        self.evaluate: Callable[[Evaluation], None] = _bound(hook.on_evaluate, "evaluation")


def _bound(caller: pluggy.HookCaller, argument: str) -> Callable[[Any], Any]:
    implementations = caller.get_hookimpls()
    plain = all(
        not each.wrapper and not each.hookwrapper and tuple(each.argnames) == (argument,) for each in implementations
    )
    if not plain:  # a wrapper, or one that takes no argument: pluggy knows what to do
        return lambda record: caller(**{argument: record})
    functions: list[Callable[[Any], Any]] = [each.function for each in reversed(implementations)]  # pluggy's own order

    def tell(record: Any) -> None:
        for function in functions:
            function(record)

    return functions[0] if len(functions) == 1 else tell
