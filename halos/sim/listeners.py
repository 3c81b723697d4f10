"""Listeners: who hears of what happens, bound once per run, since a timing run tells them a million times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Optional

import pluggy

from halos.values.records import Commit, Evaluation, LostJob, Merge, Transfer, Update

Listener = Callable[[Any], Any]


class Listeners:
    """The `on_*` hooks as plain callables; whoever registers after `bind` is not heard.

    Observers are called through `aside`, which a run that is to be resumed makes use of. The run's `components` are
    not: what they make of what they hear is part of it.
    """

    def __init__(
        self, hook: pluggy.HookRelay, aside: Callable[[Listener], Listener], components: Sequence[Any] = ()
    ) -> None:
        self._hook = hook
        self._aside = aside
        self._components = components
        self._telling = False  # whether some have heard of a record, and others may not have
        self._waiting: Optional[Callable[[], Any]] = None  # what has not come about yet
        self.bind()

    def between(self, act: Callable[[], Any], later: bool = False) -> None:
        """Call `act` when no record is being told: now (`later`: after the next one), or as soon as all have heard it.

        If what it raises is lost on the way (Python ignores errors where objects are freed), it is called again after
        the next record. A second one does not wait for those who hear, who may never be done.
        """
        first, self._waiting = self._waiting is None, act
        if not (first and (self._telling or later)):
            self._act(act)

    def _act(self, act: Callable[[], Any]) -> None:
        act()
        self._waiting = None

    def bind(self) -> None:
        """Look up who listens, and how they are to be called."""
        hook = self._hook
        self.update: Callable[[Update], None] = self._bound(hook.on_update, "update")
        self.lost: Callable[[LostJob], None] = self._bound(hook.on_lost, "lost")
        self.transfer: Callable[[Transfer], None] = self._bound(hook.on_transfer, "transfer")
        self.commit: Callable[[Commit], None] = self._bound(hook.on_commit, "commit")
        self.evaluate: Callable[[Evaluation], None] = self._bound(hook.on_evaluate, "evaluation")
        self.merge: Optional[Callable[[Merge], None]] = None  # nobody listens
        if hook.on_merge.get_hookimpls():
            self.merge = self._bound(hook.on_merge, "merge")

    def _bound(self, caller: pluggy.HookCaller, argument: str) -> Callable[[Any], Any]:
        implementations = caller.get_hookimpls()
        plain = all(
            not hook.wrapper and not hook.hookwrapper and tuple(hook.argnames) == (argument,)
            for hook in implementations
        )
        if not plain:  # a wrapper, or one that takes no argument: pluggy knows what to do
            several = partial(_all, caller, argument)
            return several if any(self._is_component(hook.plugin) for hook in implementations) else self._aside(several)
        functions: list[Callable[[Any], Any]] = [  # in pluggy's own order
            hook.function if self._is_component(hook.plugin) else self._aside(hook.function)
            for hook in reversed(implementations)
        ]

        def tell(record: Any) -> None:
            self._telling = True
            try:
                for function in functions:
                    function(record)
            finally:
                self._telling = False
            if self._waiting is not None:
                self._act(self._waiting)

        return functions[0] if len(functions) == 1 else tell

    def _is_component(self, plugin: Any) -> bool:
        return any(plugin is component for component in self._components)


def _all(caller: pluggy.HookCaller, argument: str, record: Any) -> None:
    caller(**{argument: record})
