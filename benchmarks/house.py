"""The shape of the package in numbers: files, arrows between them, levels, circles, lines.

    python -m benchmarks.house [--repo DIR] [--json]

It reads source text only, so `--repo` may be any checkout, an old one too. A *room* is a folder of halos/ with all
that is inside it, or a file beside these folders. An *arrow* is an import, wherever it stands (in a function, or only
for types). *Levels* are the rooms on the longest chain of arrows; what imports each other in a circle is one level.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

Arrows = Mapping[str, set[str]]  # who imports → what

ROOT = Path(__file__).parents[1]
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def modules(repo: Path) -> dict[str, Path]:
    """The modules of halos by name, `halos.sim.clock`; a package by its own."""
    files = sorted((repo / "halos").rglob("*.py"))
    return {".".join(file.relative_to(repo).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(text: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The modules of halos that a source imports: `from halos.sim import clock` is the module `halos.sim.clock`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:  # halos has no relative ones, a plugin's are its own
            inside = [f"{node.module}.{name.name}" for name in node.names]
            names = [name if name in known else str(node.module) for name in inside]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "halos")


def arrows(repo: Path) -> dict[str, set[str]]:
    """Per module of halos, the modules of halos that it imports."""
    found = modules(repo)
    return {
        name: set(imported(file.read_text(encoding="utf-8"), found)) & found.keys() - {name}
        for name, file in found.items()
    }


def room(module: str) -> str:
    """`halos.sim.faults.hazards` → `sim`; the package itself is `__init__`."""
    return (f"{module}.__init__").split(".")[1]


def between_rooms(files: Arrows) -> dict[str, set[str]]:
    """The arrows from room to room."""
    rooms: dict[str, set[str]] = {room(name): set() for name in files}
    for name, targets in files.items():
        rooms[room(name)] |= {room(target) for target in targets} - {room(name)}
    return rooms


def circles(graph: Arrows) -> list[list[str]]:
    """Sets of nodes that all reach each other, larger than one."""
    reach = {node: _reached(graph, node) for node in graph}
    found = {tuple(sorted(other for other in reach[node] if node in reach[other])) for node in graph}
    return sorted([list(circle) for circle in found if len(circle) > 1])


def levels(graph: Arrows) -> int:
    """How many nodes the longest chain has, a circle counting as one node."""
    named = {node: circle[0] for circle in circles(graph) for node in circle}
    whole: dict[str, set[str]] = {named.get(node, node): set() for node in graph}
    for node, targets in graph.items():
        own = named.get(node, node)
        whole[own] |= {named.get(target, target) for target in targets} - {own}
    depths: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in depths:
            depths[node] = 1 + max((depth(target) for target in whole[node]), default=0)
        return depths[node]

    return max(depth(node) for node in whole)


def lines_of_code(text: str) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def measure(repo: Path) -> dict[str, Any]:
    """All numbers of a checkout."""
    found, graph = modules(repo), arrows(repo)
    rooms = between_rooms(graph)
    texts = {name: file.read_text(encoding="utf-8") for name, file in found.items()}
    longest = max(texts, key=lambda name: texts[name].count("\n"))
    core = [text for name, text in texts.items() if room(name) != "testing"]
    return {
        "files": len(found),
        "files_per_folder": dict(Counter(file.parent.relative_to(repo).as_posix() for file in found.values())),
        "rooms": len(rooms),
        "levels_of_rooms": levels(rooms),
        "levels_of_files": levels(graph),
        "arrows_between_rooms": sum(map(len, rooms.values())),
        "arrows_between_files": sum(map(len, graph.values())),
        "circles_of_rooms": circles(rooms),
        "circles_of_files": circles(graph),
        "core_lines_of_code": sum(map(lines_of_code, core)),
        "longest_file": [found[longest].relative_to(repo).as_posix(), texts[longest].count("\n")],
    }


def _reached(graph: Arrows, start: str) -> set[str]:
    reached, left = set(), [start]
    while left:
        for target in graph[left.pop()]:
            if target not in reached:
                reached.add(target)
                left.append(target)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repo", type=Path, default=ROOT, metavar="DIR", help="another checkout")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    numbers = measure(asked.repo)
    if asked.json:
        print(json.dumps(numbers, indent=2))
        return
    for key, value in numbers.items():
        print(f"{key.replace('_', ' '):<22} {_shown(value)}")


def _shown(value: Union[int, dict[str, int], list[Any]]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{folder} {count}" for folder, count in value.items())
    if isinstance(value, list) and all(isinstance(each, list) for each in value):
        return "; ".join(" - ".join(circle) for circle in value) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
