"""Who hears of what happens, in which order, and aside or not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pluggy
import pytest

from halos import hookimpl
from halos.plugins import hookspecs
from halos.sim.listeners import Listeners

LOG: list[Any] = []


class Observer:
    """Notes what it hears in LOG."""

    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl
    def on_update(self, update: Any) -> None:
        LOG.append((self.name, update))


class Counter:
    """Is told that there was an update, and not which."""

    @hookimpl
    def on_update(self) -> None:
        LOG.append("one more")


def aside(listener: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def called(record: Any) -> None:
        LOG.append("aside")
        listener(record)

    return called


def listeners(*plugins: object, components: tuple[object, ...] = ()) -> tuple[Listeners, pluggy.PluginManager]:
    LOG.clear()
    manager = pluggy.PluginManager("halos")
    manager.add_hookspecs(hookspecs)
    for each in plugins:
        manager.register(each)
    return Listeners(manager.hook, aside, components), manager


def test_who_was_registered_last_is_told_first() -> None:
    tell, _ = listeners(Observer("a"), Observer("b"))
    tell.update(7)  # type: ignore[arg-type]
    assert LOG == ["aside", ("b", 7), "aside", ("a", 7)]


def test_components_of_the_run_are_not_called_aside() -> None:
    component = Observer("component")
    tell, _ = listeners(component, Observer("observer"), components=(component,))
    tell.update(7)  # type: ignore[arg-type]
    assert LOG == ["aside", ("observer", 7), ("component", 7)]


def test_who_takes_no_argument_is_told_all_the_same() -> None:
    tell, _ = listeners(Counter(), Observer("a"))
    tell.update(7)  # type: ignore[arg-type]
    assert LOG == ["aside", ("a", 7), "one more"]


def test_who_comes_later_is_heard_of_when_it_is_bound_again() -> None:
    tell, manager = listeners(Observer("a"))
    manager.register(Observer("late"))
    tell.update(1)  # type: ignore[arg-type]
    tell.bind()
    tell.update(2)  # type: ignore[arg-type]
    assert LOG == ["aside", ("a", 1), "aside", ("late", 2), "aside", ("a", 2)]


def test_without_listeners_nothing_happens() -> None:
    tell, _ = listeners()
    tell.commit(None)  # type: ignore[arg-type]
    assert LOG == []


def test_merges_are_told_only_where_somebody_listens() -> None:
    class Hears:
        @hookimpl
        def on_merge(self, merge: Any) -> None:
            LOG.append(merge)

    assert listeners(Observer("a"))[0].merge is None
    tell, _ = listeners(Hears())
    assert tell.merge is not None
    tell.merge(7)  # type: ignore[arg-type]
    assert LOG == ["aside", 7]


def test_what_must_not_come_between_waits_until_all_have_heard() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    class Stops:
        @hookimpl
        def on_update(self, update: Any) -> None:
            for _ in range(update):  # the second does not wait: this one may never be done
                tell.between(stop)
            LOG.append("goes on")

    tell, _ = listeners(Observer("a"), Stops())
    with pytest.raises(KeyboardInterrupt):
        tell.update(1)  # type: ignore[arg-type]
    assert LOG == ["aside", "goes on", "aside", ("a", 1)]
    tell, _ = listeners(Observer("a"), Stops())
    with pytest.raises(KeyboardInterrupt):
        tell.update(2)  # type: ignore[arg-type]
    assert LOG == ["aside"]


def test_what_is_raised_and_lost_on_the_way_is_raised_after_the_next_record() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    tell, _ = listeners(Observer("a"), Observer("b"))
    with suppress(KeyboardInterrupt):  # as Python does, where an object is freed
        tell.between(stop)
    with pytest.raises(KeyboardInterrupt):
        tell.update(7)  # type: ignore[arg-type]
    tell, _ = listeners(Observer("a"), Observer("b"))
    tell.between(stop, later=True)
    with pytest.raises(KeyboardInterrupt):
        tell.update(7)  # type: ignore[arg-type]
    assert LOG == ["aside", ("b", 7), "aside", ("a", 7)]


def test_what_raises_nothing_is_called_once() -> None:
    tell, _ = listeners(Observer("a"), Observer("b"))
    tell.between(lambda: LOG.append("heard"))
    tell.update(7)  # type: ignore[arg-type]
    assert LOG.count("heard") == 1
