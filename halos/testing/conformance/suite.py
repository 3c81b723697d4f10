"""The base of the conformance suites: which components they are about, and how they say that one is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

from halos.config.builder import Builder
from halos.config.yaml_text import Section
from halos.errors import UserError, from_here
from halos.plugins.registry import KINDS, Component, Plugins
from halos.testing.recording import Recording, record

JITTER = "halos.testing.situations"  # a plugin for every suite's runs


class Suite:
    """A pytest class to inherit from: `class TestMine(PolicyConformance): plugins = ["my_idea.py"]`.

    It tests every component of its kind that `plugins` bring, or, without any, every one there is: with its
    defaults, or as `sections` say.
    """

    kind: ClassVar[str]  # one of halos.plugins.KINDS
    plugins: ClassVar[Sequence[str]] = ()  # files or modules, as for --plugin
    sections: ClassVar[
        Sequence[Section]
    ] = ()  # {"name": …, …}: instead of a component's defaults; several are all tested

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test that takes a `section` runs once for each of the suite's."""
        if "section" in metafunc.fixturenames:
            subjects = self.subjects()
            metafunc.parametrize("section", subjects, ids=[subject["name"] for subject in subjects])

    @classmethod
    def subjects(cls) -> list[Section]:
        """The sections to test."""
        given = [section["name"] for section in cls.sections]
        components = plugins_of(tuple(cls.plugins)).components[cls.kind].values()
        everything = not (cls.plugins or cls.sections)
        others = [
            component for component in components if everything or any(brings(name, component) for name in cls.plugins)
        ]
        subjects = [*cls.sections, *({"name": component.name} for component in others if component.name not in given)]
        if not subjects:
            raise UserError(f"{cls.__name__}: no {cls.kind} comes with {', '.join(cls.plugins)}")
        return subjects

    def build(self, section: Section) -> Any:
        """A new component, as the section says."""
        with self.about(section):
            return Builder(plugins_of(tuple(self.plugins))).convert(KINDS[self.kind][0], section, self.kind)

    def record(self, section: Section, sections: Section, where: str = "", policy: Any = None) -> Recording:
        """A run in which `section` has a part; an error in it is one of the component."""
        with self.about(section, where):
            return record(sections, [*self.plugins, JITTER], policy)

    @contextmanager
    def about(self, section: Section, where: str = "") -> Iterator[None]:
        """Whatever goes wrong inside is said to be of this component."""
        try:
            yield
        except UserError as error:
            hint = f" (give the suite `sections`; it tries {section})" if "missing" in str(error) else ""
            raise AssertionError(f"{self.name(section)}{where}: {error}{hint}") from error
        except Exception as error:
            raise AssertionError(f"{self.name(section)}{where}: {type(error).__name__}: {error}") from error

    def check(self, condition: bool, section: Section, problem: str) -> None:
        """Fail unless `condition`."""
        assert condition, f"{self.name(section)}: {problem}"

    def name(self, section: Section) -> str:
        """The component as messages call it."""
        options = ", ".join(f"{key}: {value}" for key, value in section.items() if key != "name")
        return f"{self.kind} {section['name']!r}" + (f" ({options})" if options else "")


@lru_cache(maxsize=16)
def plugins_of(names: tuple[str, ...]) -> Plugins:
    """Plugins to build components with; never used for a run."""
    return Plugins(list(names))


def brings(plugin: str, component: Component) -> bool:
    """Whether the component comes with that plugin, be it installed or not."""
    module = Path(plugin).stem if plugin.endswith(".py") else plugin
    return component.origin == from_here(plugin) or f"{component.cls.__module__}.".startswith(f"{module}.")
