"""`--list-plugins`: every component by kind, and where it comes from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from halos.plugins.registry import Plugins


def show(plugins: Plugins) -> None:
    """Print them as a table."""
    table = Table("kind", "name", "from", "what", box=None, pad_edge=False, header_style="bold")
    for kind, components in plugins.components.items():
        for component in sorted(components.values(), key=lambda each: each.name):
            table.add_row(kind, component.name, component.origin, component.summary)
    console = Console(highlight=False, markup=False, emoji=False)  # a docstring means its brackets
    if not console.is_terminal:
        console.width = 240  # for grep: one line each
    console.print(table)
