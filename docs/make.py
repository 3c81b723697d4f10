"""Writes docs/reference from the code: `python docs/make.py`, from anywhere in an installed checkout."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import halos
from halos.config.comments import meanings
from halos.config.config import Config
from halos.config.topics import HINTS, Key, Topic, Topics
from halos.observers.experiment import Experiment
from halos.plugins import hookspecs
from halos.plugins.optional import MAY
from halos.plugins.registry import KINDS, Plugins, docstring
from halos.sim.clock import Event, Process
from halos.sim.faults.watch import Watch
from halos.sim.rounds import Round
from halos.sim.simulation import Simulation
from halos.sim.transit.collectives import Collective
from halos.values import records
from halos.values.params import Layout, Params
from halos.world.cluster import Cluster, Region, Worker

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference"
MADE = "Made from the code by `python docs/make.py`; what is wrong here is wrong there."

SEEN = [Simulation, Watch, Event, Process, Collective, Round, Worker, Region, Cluster, Params, Layout]
NAMES = ("Update", "Contribution", "Share", "EndToEnd", "Commit", "Transfer", "LostJob", "Evaluation")
TOLD = [*(getattr(records, name) for name in NAMES), Experiment]

# Text


def escaped(text: str) -> str:
    """Prose as Markdown: a star that is part of a symbol (outside code, and no emphasis) stays one."""
    pieces = re.split(r"(`+[^`]*`+|(?<![\w*])\*[^\s*][^*]*\*(?!\w))", text)
    return "".join(each if each[:1] in ("`", "*") else each.replace("*", r"\*") for each in pieces)


def cell(text: str) -> str:
    return escaped(" ".join(text.split())).replace("|", r"\|")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *([each.replace("|", r"\|") for each in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# Signatures


class Bare:
    """An annotation that shows without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(function: Callable[..., Any], name: str = "") -> str:
    """As it is written, without `self`."""
    written = inspect.signature(function)
    parameters = [
        each if each.annotation is inspect.Parameter.empty else each.replace(annotation=Bare(each.annotation))
        for each in written.parameters.values()
        if each.name not in ("self", "cls")
    ]
    returns = Bare(written.return_annotation)
    return f"{name or function.__name__}{written.replace(parameters=parameters, return_annotation=returns)}"


def annotations(cls: type[Any]) -> dict[str, str]:
    """Of its public fields, as written."""
    written = inspect.get_annotations(cls)
    bare = {name: getattr(each, "__forward_arg__", each) for name, each in written.items()}  # NamedTuple wraps them
    return {name: each for name, each in bare.items() if not name.startswith("_")}


def attributes_set(cls: type[Any]) -> dict[str, tuple[str, str]]:
    """What its methods set on `self` for others to see: type, and the comment beside it or what the type is."""
    module = sys.modules[cls.__module__]
    lines = inspect.getsource(module).splitlines()
    (body,) = [each for each in ast.parse("\n".join(lines)).body if getattr(each, "name", "") == cls.__name__]
    found: dict[str, tuple[str, str]] = {}
    for method in [each for each in body.body if isinstance(each, ast.FunctionDef)]:
        hints = {each.arg: each.annotation for each in method.args.args}
        for node in ast.walk(method):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for name in [each.attr for each in targets if isinstance(each, ast.Attribute) and on_self(each)]:
                words = type_of(node, hints)
                _, _, comment = lines[node.lineno - 1].partition("  # ")
                known = getattr(module, words, None)
                ours = inspect.isclass(known) and known.__module__.startswith("halos.")
                said = comment or (docstring(known).split("\n\n")[0] if ours else "")
                if name not in found and (words or said):
                    found[name] = (words, said)
    return found


def on_self(target: ast.Attribute) -> bool:
    return isinstance(target.value, ast.Name) and target.value.id == "self" and not target.attr.startswith("_")


def type_of(node: Any, parameters: dict[str, Any]) -> str:
    """Of an assignment: as annotated, as the parameter that is kept, what is made, or of the constant; or nothing."""
    hint, value = getattr(node, "annotation", None), node.value
    if hint is None and isinstance(value, ast.Name):
        hint = parameters.get(value.id)
    if hint is None and isinstance(value, ast.Call) and ast.unparse(value.func)[0].isupper():
        hint = value.func
    if hint is None and isinstance(value, ast.Constant) and value.value is not None:
        return type(value.value).__name__
    return ast.unparse(hint) if hint else ""


def members(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Signature and text of what is public of a class: attributes, properties, methods."""
    said = meanings(cls)
    for name, hint in annotations(cls).items():
        yield f"{name}: {hint}", said.get(name, "")
    if not (is_record(cls) or getattr(cls, "_is_protocol", False)):
        for name, (hint, text) in attributes_set(cls).items():
            yield f"{name}: {hint}" if hint else name, text
    for name, each in vars(cls).items():
        if name.startswith("_") or name in annotations(cls):
            continue
        if isinstance(each, property):
            yield f"{name}: {inspect.signature(each.fget).return_annotation}", inspect.getdoc(each) or ""  # type: ignore[arg-type]
        elif isinstance(each, (staticmethod, classmethod)) or inspect.isfunction(each):
            yield signature(getattr(cls, name), name), inspect.getdoc(each) or ""


def is_record(cls: type[Any]) -> bool:
    """Whether it is its fields, whatever makes it so: a dataclass, a named tuple or a struct."""
    return dataclasses.is_dataclass(cls) or hasattr(cls, "_fields") or hasattr(cls, "__struct_fields__")


def bullets(several: Iterable[tuple[str, str]]) -> str:
    lines = []
    for head, text in several:
        body = textwrap.indent(escaped(text), "  ").strip()
        lines.append(f"- `{head}`" + (f": {body}" if body else ""))
    return "\n".join(lines) + "\n" if lines else ""


def part(cls: type[Any]) -> str:
    """A class: a record's fields as a table, and what it can be asked."""
    said, hints = meanings(cls), annotations(cls) if is_record(cls) else {}
    rows = [[f"`{name}`", f"`{hint}`", cell(said.get(name, ""))] for name, hint in hints.items()]
    others = [(re.split(r"[(:]", head)[0], head, text) for head, text in members(cls)]
    asked = [(head, text) for name, head, text in others if name not in (*hints, "as_json", "as_line")]
    fields = table(["field", "type", ""], rows) if rows else ""
    texts = [f"### {cls.__name__}", escaped(docstring(cls)), fields, bullets(asked)]
    return "\n\n".join(each.rstrip() for each in texts if each) + "\n"


# The pages


def config_page() -> str:
    """Every section and built-in component with its keys."""
    every = Topics(Plugins())
    topics = list(every.everything("halos"))
    top = [each.path for each in topics if each.path in HINTS and not each.keys and not each.components]
    sections = [each for each in topics if each.path not in top]
    headings = [f"`{each.path}`" for each in sections if "." not in each.path]
    return "\n".join(
        [
            f"# Every key\n\n{MADE}\n",
            "`python -m halos.run --explain policy.halos` prints any of it, for components of plugins as well.\n"
            "Defaults are YAML; types are in words, as messages have them. How a configuration is put together is in\n"
            "[config.md](../config.md).\n",
            "Contents: [top level](#top-level) · " + " · ".join(f"[{each}](#{slug(each)})" for each in headings) + "\n",
            "## Top level\n\nBeside these keys, one for each section below.\n",
            keys_table(key for key in every.keys(Config) if key.name in top),
            *map(topic_text, sections),
        ]
    )


def topic_text(topic: Topic) -> str:
    note = "Required." if topic.note == "required" else ""
    if topic.note.startswith("default: ") and topic.components:
        name = topic.note.removeprefix("default: ")
        note = f"Default: [`{name}`](#{slug(f'{topic.path}.{name}')})."
    text = "\n\n".join(each for each in (escaped(topic.text), note) if each)
    level = "##" if "." not in topic.path else "###"
    return f"{level} `{topic.path}`\n\n{text}\n" + (f"\n{keys_table(topic.keys)}" if topic.keys else "")


def keys_table(keys: Iterable[Key]) -> str:
    rows = [[f"`{key.name}`", key.type, default(key.default), cell(key.meaning)] for key in keys]
    return table(["key", "type", "default", "meaning"], rows)


def default(text: str) -> str:
    return text if text in ("required", "that of its keys") else f"`{text}`"


def plugins_page() -> str:
    """Hooks, contracts, and all that can be imported from `halos`."""
    public = {name: getattr(halos, name) for name in halos.__all__}
    hooks = [each for name, each in vars(hookspecs).items() if name.startswith(("register_", "on_"))]
    contracts = {kind: protocol for kind, (protocol, _) in KINDS.items()}
    classes = [each for each in public.values() if inspect.isclass(each)]
    known = Plugins().components.items()
    built_in = {each.cls: f"{kind} `{name}`" for kind, several in known for name, each in several.items()}
    named = {*contracts.values(), *SEEN, *TOLD, *built_in}
    errors = [each for each in classes if issubclass(each, BaseException)]
    others = [each for each in classes if each not in named and each not in errors]
    functions = [each for each in public.values() if inspect.isfunction(each)]
    given = [f"`{each.__name__}`" for each in (*SEEN, *TOLD) if each.__name__ not in public]
    rest = [name for name, each in public.items() if each not in classes and each not in functions]
    return "\n".join(
        [
            f"# What plugins are made of\n\n{MADE} Examples are in\n[plugins.md](../plugins.md).\n",
            f"All of it is imported from `halos`; {', '.join(given)} are not imported, but given. Times are virtual\n"
            "seconds, sizes bytes.\n",
            "Contents: [hooks](#hooks) · [contracts](#contracts) · [what a policy sees](#what-a-policy-sees) ·\n"
            "[records](#records) · [other classes](#other-classes) · [functions](#functions) · [errors](#errors) ·\n"
            "[components](#components)\n",
            f"## Hooks\n\n{escaped(inspect.getdoc(hookspecs) or '')}\n",
            table(["hook", ""], ([f"`{signature(each)}`", cell(inspect.getdoc(each) or "")] for each in hooks)),
            "## Contracts\n\nWhat a component of each kind must have, exactly; there is nothing to inherit from. Only\n"
            "a policy's `run` is a coroutine.\n",
            *(contract(kind, each) for kind, each in contracts.items()),
            "## What a policy sees\n",
            *map(part, SEEN),
            "## Records\n\nImmutable, handed to observers and found in a `Recording`.\n",
            *map(part, TOLD),
            "## Other classes\n",
            *map(part, others),
            "## Functions\n",
            bullets((signature(each), inspect.getdoc(each) or "") for each in functions),
            "## Errors\n",
            bullets((each.__name__, docstring(each)) for each in errors),
            "## Components\n\nBuilt-in ones, for defaults and to be called by one's own.\n",
            bullets((made(each), built_in[each]) for each in classes if each in built_in),
            "Besides: " + ", ".join(f"`{name}`" for name in rest) + ".\n",
        ]
    )


def contract(kind: str, protocol: type[Any]) -> str:
    """What components of a kind must have, and what they may have beside it."""
    must = f"### {kind}\n\n`{protocol.__name__}`. {escaped(docstring(protocol))}\n\n{bullets(members(protocol))}"
    return must + (f"\nIt may have, beside these:\n\n{bullets(members(MAY[kind]))}" if kind in MAY else "")


def made(component: type[Any]) -> str:
    return f"{component.__name__}({', '.join(each.name for each in dataclasses.fields(component) if each.init)})"


def files_page() -> str:
    """A line for every file of halos."""
    out = [f"# The files of halos\n\n{MADE}\n"]
    folders = sorted({path.parent for path in (ROOT / "halos").rglob("*.py")})
    for folder in folders:
        rows = []
        for path in sorted(folder.glob("*.py"), key=lambda each: (each.name != "__init__.py", each.name)):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            name = path.relative_to(ROOT).as_posix()
            rows.append([f"[{path.name}](../../{name})", cell(text.split("\n\n")[0])])
        out.append(f"## {folder.relative_to(ROOT).as_posix()}\n\n{table(['file', ''], rows)}")
    return "\n".join(out)


PAGES: dict[str, Callable[[], str]] = {"config.md": config_page, "plugins.md": plugins_page, "files.md": files_page}


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
