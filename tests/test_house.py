"""Who may import whom: the rows of the house, kept here and nowhere else."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from benchmarks.house import arrows, imported, modules, room

ROOT = Path(__file__).parents[1]

# A room (a folder of halos/, or a file beside these) imports from lower rows; inside a row nobody imports a neighbour.
ROWS = (
    "errors seeds hooks lazy",
    "values",
    "world models command",
    "observers rules data",
    "training",
    "sim",
    "plugins policies",
    "config",
    "resume utilization export reading",
    "__init__ run compare",
    "sweep",
    "testing",
)
NEVER = {("sim", "observers")}  # though the row would allow it
SIM = (  # the same inside sim
    "clock ledger origins servers listeners course lr_clock",
    "rounds limits",
    "parts",
    "faults probes",
    "transit",
    "jobs",
    "evaluations",
    "simulation",
    "backlog outbox",
)
FILES = arrows(ROOT)
# Files that have no test of their name, and why.
TESTED_ELSEWHERE = {
    "models/neox_network.py": "is built and run by tests/models/test_gpt_neox.py alone",
    "models/toy_modules.py": "is built and run by tests/models/test_toy.py alone",
    "observers/observer.py": "is a contract without methods; tests/plugins/test_registry.py holds observers to it",
    "plugins/hookspecs.py": "declares the hooks; tests/plugins/test_registry.py and test_docs.py hold it to that",
    "sim/parts.py": "has fields and nothing else",
}


def row(name: str, rows: tuple[str, ...]) -> int:
    (found,) = [index for index, names in enumerate(rows) if name in names.split()]
    return found


def breaks(source: str, target: str) -> bool:
    """Whether no such arrow is allowed."""
    if target == "halos":
        return True  # the public face is for those outside
    here, there = room(source), room(target)
    if here != there:
        return row(there, ROWS) >= row(here, ROWS) or (here, there) in NEVER
    inside, other = (name.split(".")[2:3] for name in (source, target))
    return here == "sim" and inside != other and row(*other, SIM) >= row(*inside, SIM)


def test_every_room_has_a_row() -> None:
    assert sorted(" ".join(ROWS).split()) == sorted({room(name) for name in FILES})


@pytest.mark.parametrize("source", [name for name in FILES if FILES[name]])
def test_a_file_imports_from_lower_rows_only(source: str) -> None:
    assert [target for target in sorted(FILES[source]) if breaks(source, target)] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter(FILES).prepare()


def test_every_file_has_a_test_file_of_its_name_or_a_reason_to_have_none() -> None:
    untested = []
    for file in sorted((ROOT / "halos").rglob("*.py")):
        name = file.relative_to(ROOT / "halos")
        if file.name not in ("__init__.py", "__main__.py") and name.parts[0] != "testing":
            tests = list((ROOT / "tests" / name.parent).glob(f"test_{file.name}"))
            untested += [name.as_posix()] if not tests else []
    assert untested == sorted(TESTED_ELSEWHERE)


def test_plugins_import_from_the_public_face_alone() -> None:
    sources = {
        str(file): file.read_text(encoding="utf-8")
        for top in ("plugins", "third_party")
        for file in ROOT.glob(f"{top}/**/*.py")
    }
    for page in ("docs/plugins.md", "docs/testing.md", "docs/network.md", "docs/aggregators.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", text, re.M | re.S)
        sources |= {f"{page}, example {number}": block for number, block in enumerate(blocks, 1)}
    assert len(sources) > 30
    known = modules(ROOT)
    for where, text in sources.items():
        inside = [name for name in imported(text, known) if name != "halos" and room(name) != "testing"]
        assert not inside, f"{where} imports {inside}; a plugin needs only halos and halos.testing"
