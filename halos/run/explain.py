"""`--list-plugins` and `--explain`: what there is, and what its keys mean, as tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from rich.console import Console
from rich.table import Table

from halos.config.topics import Topic, Topics
from halos.plugins.registry import Component, Plugins

UNSEEN = 240  # characters a line where no terminal says how many it takes: for grep, one line each


def explain(what: str, plugins: Plugins) -> None:
    """Print what `what` means, a topic's name or `all`. Raises ConfigError if there is no such topic."""
    topics = Topics(plugins)
    console = _console()
    for index, topic in enumerate(topics.everything() if what == "all" else [topics.find(what)]):
        if index:
            console.print()
        _show(topic, console)


def list_plugins(plugins: Plugins) -> None:
    """Print every component by kind, and where it comes from."""
    kinds = [sorted(known.values(), key=lambda component: component.name) for known in plugins.components.values()]
    _console().print(_components(chain(*kinds), "kind", "name", "from", "what"))


def _show(topic: Topic, console: Console) -> None:
    console.print(f"{topic.path}: {topic.note}" if topic.note else topic.path, style="bold")
    if topic.text:
        console.print(f"\n{flowing(topic.text)}")
    if topic.keys:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("key", no_wrap=True)
        for heading, most in (("type", 16), ("default", 18), ("meaning", None)):  # the meaning has what is left
            table.add_column(heading, max_width=most if console.is_terminal else None, overflow="fold")
        for key in topic.keys:
            table.add_row(key.name, key.type, key.default, key.meaning)
        console.print()
        console.print(table)
    if topic.components:
        console.print()
        console.print(_components(topic.components, "name", "from", "what"))


def flowing(text: str) -> str:
    """Paragraphs as one line each, for the terminal to break; what is indented in them (a formula) stays as it is."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if "\n " in each else " ".join(each.split("\n")) for each in paragraphs)


def _components(components: Iterable[Component], *columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for component in components:
        cells = {
            "kind": component.kind,
            "name": component.name,
            "from": component.origin,
            "what": component.summary,
        }
        table.add_row(*(cells[column] for column in columns))
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)  # a docstring means its brackets
    if not console.is_terminal:
        console.width = UNSEEN
    return console
