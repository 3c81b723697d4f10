"""The marks by which plugins are known."""

from __future__ import annotations

import pluggy

import halos
from halos.hooks import hookimpl, hookspec


class Specification:
    @hookspec
    def on_rain(self, millimetres: float) -> None: ...


class Gauge:
    def __init__(self) -> None:
        self.heard: list[float] = []

    @hookimpl
    def on_rain(self, millimetres: float) -> None:
        self.heard.append(millimetres)

    def on_snow(self, millimetres: float) -> None:
        raise AssertionError("it bears no mark")


def test_what_bears_the_mark_is_called_and_nothing_else() -> None:
    manager, gauge = pluggy.PluginManager("halos"), Gauge()
    manager.add_hookspecs(Specification)
    manager.register(gauge)
    manager.hook.on_rain(millimetres=2.5)
    assert gauge.heard == [2.5]
    assert [each.name for each in manager.get_hookcallers(gauge) or []] == ["on_rain"]


def test_a_plugin_finds_the_mark_in_halos_itself() -> None:
    assert halos.hookimpl is hookimpl
