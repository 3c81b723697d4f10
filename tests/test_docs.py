"""The documentation as it is written: its signatures, keys, examples and links are those of the code."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import halos
from halos.config.builder import Builder
from halos.config.config import DEFAULTS, CheckpointOptions, Config
from halos.data import DataOptions
from halos.observers.builtin import ObserverOptions
from halos.observers.experiment import Experiment
from halos.plugins.registry import KINDS, Plugins, hookspecs
from halos.run.cli import main
from halos.sim import simulation
from halos.sim.limits import BudgetOptions, EvaluateOptions
from halos.training.options import OptimizerOptions, ScheduleOptions, TrainOptions
from halos.values import records
from halos.values.params import Params
from halos.world.cluster import ClusterOptions, RegionOptions
from halos.world.faults import Crash, FaultOptions, LinkFault, RegionOutage

ROOT = Path(__file__).parents[1]
PLUGINS, CONFIG = ROOT / "docs/plugins.md", ROOT / "docs/config.md"
MARKDOWN = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
NO_RUNS = {"env", "utilization"}  # folders of other configs
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if not NO_RUNS & {*path.relative_to(ROOT).parts})
QUIET = ["observers.progress=false", "observers.tensorboard=false", "observers.trace=false"]

# Reading the pages


def section(path: Path, heading: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    text = without_code(path.read_text())
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.M)
    assert found, f"{path.name} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", without_code(path.read_text()), re.M)


def bullets(text: str) -> dict[str, str]:
    """`- `name(…) -> …`` and `- `name: type``, by name."""
    return {re.split(r"[(:]", each)[0]: each for each in re.findall(r"^- `([^`]+)`", text, re.M)}


def rows(text: str) -> list[list[str]]:
    """The cells of the first table's rows, without its header."""
    table = re.search(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)*)", text, re.M)
    if table is None:
        return []
    return [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[1].splitlines()
    ]


def titled_files(path: Path) -> dict[str, str]:
    """The code blocks under a line that is a file's name, by that name."""
    return dict(re.findall(r"^`([\w-]+\.\w+)`\n\n```\w+\n(.*?)^```$", path.read_text(), re.M | re.S))


def commands(path: Path) -> list[str]:
    consoles = re.findall(r"^```console\n(.*?)^```$", path.read_text(), re.M | re.S)
    return [line[2:] for console in consoles for line in console.splitlines() if line.startswith("$ ")]


# Reading the code


class Bare:
    """An annotation that shows without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(function: Callable[..., Any]) -> str:
    """As written, without `self`."""
    written = inspect.signature(function)
    parameters = [
        each if each.annotation is inspect.Parameter.empty else each.replace(annotation=Bare(each.annotation))
        for name, each in written.parameters.items()
        if name != "self"
    ]
    returns = Bare(written.return_annotation)
    return f"{function.__name__}{written.replace(parameters=parameters, return_annotation=returns)}"


def annotations(cls: type[Any]) -> dict[str, str]:
    """Of its fields, as written."""
    written = inspect.get_annotations(cls)
    return {name: getattr(each, "__forward_arg__", each) for name, each in written.items()}  # NamedTuple wraps them


def members(cls: type[Any]) -> dict[str, str]:
    """Signatures of the public methods, and types of the properties and annotated attributes, by name."""
    found = {name: f"{name}: {each}" for name, each in annotations(cls).items() if not name.startswith("_")}
    for name, each in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(each, property):
            found[name] = f"{name}: {inspect.signature(each.fget).return_annotation}"  # type: ignore[arg-type]
        elif isinstance(each, (staticmethod, classmethod)) or inspect.isfunction(each):
            found[name] = signature(getattr(cls, name))
    return found


def attributes_set(cls: type[Any]) -> dict[str, str]:
    """What `__init__` sets on itself: `name: type`, or only `name` where the type is not written."""
    tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    init = next(node for node in body.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    found = {}
    for node in ast.walk(init):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
            written = getattr(node, "annotation", None)
            found[target.attr] = f"{target.attr}: {ast.unparse(written)}" if written else target.attr
    return found


# docs/plugins.md


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    hooks = [each for name, each in vars(hookspecs).items() if name.startswith(("register_", "on_"))]
    assert len(hooks) > 10
    table = rows(section(PLUGINS, "Every hook"))
    assert [row[0] for row in table] == [f"`{signature(hook)}`" for hook in hooks]
    assert all(row[1].endswith(".") for row in table), "each hook has a sentence"


def test_all_that_a_policy_sees_is_documented_with_its_exact_signature() -> None:
    documented = bullets(section(PLUGINS, "What a policy sees"))
    expected = members(simulation.Simulation)
    for name, attribute in attributes_set(simulation.Simulation).items():
        untyped = attribute == name and documented.get(name, "").startswith(f"{name}: ")
        expected[name] = documented[name] if untyped else attribute
    assert documented == expected


def test_parameters_are_documented_with_their_exact_methods() -> None:
    assert bullets(section(PLUGINS, "Parameters")) == members(Params)


@pytest.mark.parametrize("kind", KINDS)
def test_each_contract_is_documented_with_its_exact_methods(kind: str) -> None:
    protocol = KINDS[kind][0]
    text = section(PLUGINS, kind)
    assert getattr(halos, protocol.__name__) is protocol
    assert f"`halos.{protocol.__name__}`" in text
    assert bullets(text) == members(protocol)


@pytest.mark.parametrize(
    "record",
    [
        *(getattr(records, name) for name in ("Update", "Contribution", "Share", "Commit", "Transfer", "Evaluation")),
        Experiment,
    ],
    ids=lambda record: record.__name__,
)
def test_each_record_is_documented_with_its_exact_fields(record: type[Any]) -> None:
    documented = [tuple(row[:2]) for row in rows(section(PLUGINS, record.__name__))]
    assert documented == [(f"`{name}`", f"`{each}`") for name, each in annotations(record).items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of docs/plugins.md, where its commands can be run."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in titled_files(PLUGINS).items():
        if name not in ("setup.cfg", "pyproject.toml"):
            (folder / name).write_text(text)
    return folder


def test_the_example_policy_is_a_file_of_sixty_lines_at_most() -> None:
    assert len(titled_files(PLUGINS)["half_pace.py"].splitlines()) <= 60


@pytest.mark.parametrize("command", [each for each in commands(PLUGINS) if "halos.run" in each])
def test_the_documented_runs_run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "halos.run"]
    assert main(words[3:]) == 0
    name = next((word.removeprefix("name=") for word in words if word.startswith("name=")), "idea")
    assert json.loads((folder / "runs" / name / "summary.json").read_text())["local_steps"] >= 960
    if name == "lateness":
        late = json.loads((folder / "runs/lateness/lateness.json").read_text())
        # Of each region's two workers the fast one joins 40 times, the slow one, one version late, 20 times.
        assert late == {"east": {"0": 40, "1": 20}, "west": {"0": 40, "1": 20}}


def test_the_documented_tests_pass(folder: Path) -> None:
    (command,) = [each for each in commands(PLUGINS) if "pytest" in each]
    words = [sys.executable, *shlex.split(command)[1:], "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(text.count("def test_") for name, text in titled_files(PLUGINS).items() if name.startswith("test_"))
    assert f"{count} passed" in done.stdout


def test_an_installed_package_is_found_by_the_documented_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip makes of the documented setup.cfg, without pip."""
    files = titled_files(PLUGINS)
    setup = configparser.ConfigParser()
    setup.read_string(files["setup.cfg"])
    name, version = setup["metadata"]["name"], setup["metadata"]["version"]
    (tmp_path / f"{setup['options']['py_modules']}.py").write_text(files["half_pace.py"])
    entries = setup["options.entry_points"]
    assert list(entries) == ["halos"]
    info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[halos]\n{entries['halos'].strip()}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    component = Plugins().components["policy"]["half_pace"]
    assert (component.origin, component.cls.__module__) == (f"{name} {version}", "halos_half_pace")


# docs/config.md

OPTIONS = {
    "`cluster`": ClusterOptions,
    "`cluster.regions[]`": RegionOptions,
    "Keys of every data source": DataOptions,
    "`train`": TrainOptions,
    "`train.optimizer`": OptimizerOptions,
    "`train.schedule`": ScheduleOptions,
    "Keys of every fault model": FaultOptions,
    "`faults.at[]` of `crashes`": Crash,
    "`faults.at[]` of `outages`": RegionOutage,
    "`faults.at[]` of `links`": LinkFault,
    "`budget`": BudgetOptions,
    "`evaluate`": EvaluateOptions,
    "`checkpoint`": CheckpointOptions,
    "`observers`": ObserverOptions,
}


SHARED = {"data source": DataOptions, "fault model": FaultOptions}  # documented once, for all of the kind


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins()


def check_keys(heading: str, cls: type[Any], plugins: Plugins, leave_out: tuple[str, ...] = ()) -> None:
    """The table under `heading` has the fields of `cls`, in order, with their types and defaults."""
    builder, hints = Builder(plugins), typing.get_type_hints(cls)
    table = {row[0].strip("`"): row[1:3] for row in rows(section(CONFIG, heading))}
    expected = [each for each in fields(cls) if each.init and each.name not in leave_out]
    assert list(table) == [each.name for each in expected], f"under {heading}"
    for each in expected:
        words, default = table[each.name]
        key, hint = f"{heading}, {each.name}", hints[each.name]
        assert words == builder.describe(hint).split(": {name")[0], key
        if default == "required":
            assert each.default is MISSING and each.default_factory is MISSING, key
        else:
            written = yaml.safe_load(default.strip("`"))
            actual = each.default if each.default_factory is MISSING else each.default_factory()
            assert builder.convert(hint, written, key) == actual, f"{key}: {default} is not {actual}"


@pytest.mark.parametrize("heading", OPTIONS)
def test_every_section_is_documented_with_its_keys_types_and_defaults(heading: str, plugins: Plugins) -> None:
    check_keys(heading, OPTIONS[heading], plugins)


def test_the_top_level_is_documented_with_its_keys_and_sections(plugins: Plugins) -> None:
    builder, hints = Builder(plugins), typing.get_type_hints(Config)
    described = {name: builder.describe(hint) for name, hint in hints.items()}
    sections = [name for name, words in described.items() if "section" in words or "{name" in words]
    assert {f"`{name}`" for name in sections} <= set(headings(CONFIG))
    table = {row[0].strip("`"): row[1:3] for row in rows(section(CONFIG, "Top level"))}
    assert set(table) - {"extends"} == set(hints) - set(sections)
    for each in fields(Config):
        if each.name in table:
            words, default = table[each.name]
            actual = each.default if each.default_factory is MISSING else each.default_factory()
            assert (words, yaml.safe_load(default.strip("`"))) == (described[each.name], actual)
    for name, default in DEFAULTS.items():
        assert f"Default: `{default['name']}`" in section(CONFIG, f"`{name}`")


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_component_is_documented_with_its_keys_types_and_defaults(kind: str, plugins: Plugins) -> None:
    built_in = {name: each.cls for name, each in plugins.components[kind].items() if each.origin == "halos"}
    documented = [name for each in headings(CONFIG) for name in re.findall(rf"^{kind} `(\w+)`$", each)]
    assert sorted(documented) == sorted(built_in)
    for name, cls in built_in.items():
        shared = tuple(each.name for each in fields(SHARED[kind])) if kind in SHARED else ()
        check_keys(f"{kind} `{name}`", cls, plugins, leave_out=shared)


def keys(heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows(section(CONFIG, heading))]


def test_the_run_folder_holds_what_is_documented(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = tmp_path / "run"
    assert main(["idea.yaml", "policy.name=async_local_sgd", "observers.results=true", f"out={run}"]) == 0
    first = {path.name: json.loads(path.open().readline()) for path in run.glob("*.jsonl")}
    assert {f"`{name}`" for name in first} <= set(headings(CONFIG))
    for name, line in first.items():
        assert keys(f"`{name}`") == list(line), name
    assert keys("A commit's contributions") == list(first["commits.jsonl"]["contributions"][0])
    assert keys("`summary.json`") == list(json.loads((run / "summary.json").read_text()))
    assert keys("`results.pt`") == list(torch.load(run / "results.pt", weights_only=False))
    told = section(CONFIG, "The run folder")
    for path in run.iterdir():
        assert path.name.split(".v2")[0].split(".tfevents")[0] in told, f"{path.name} is not documented"


# README, configs, links


def test_the_readme_lists_every_file_of_halos_and_no_other() -> None:
    """Its blocks marked `text` have lines of a path, two or more spaces, and a description."""
    blocks = re.findall(r"^```text\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    listed = [line[1] for block in blocks for line in re.finditer(r"^(\S*[/.]\S*) {2,}\S", block, re.M)]
    files = [path for path in (ROOT / "halos").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(listed) == len(set(listed))
    missing = {str(path.relative_to(ROOT)) for path in files if path.name != "py.typed"} - set(listed)
    assert not missing, f"README's tree lacks {sorted(missing)}"
    gone = [name for name in listed if not (ROOT / name).exists()]
    assert not gone, f"README's tree lists {gone}, which are not there"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_loads_and_runs_one_tiny_round(path: Path, tmp_path: Path) -> None:
    changes = ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}", *QUIET]
    if "policy" not in yaml.safe_load(path.read_text()) and path.name == "common.yaml":  # what others extend
        changes += ["policy.name=diloco", "steps.name=fixed"]
    assert main([str(path), *changes]) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["commits"] == 1


def slugs(path: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings(path)}


def links() -> Iterator[Any]:
    for path in MARKDOWN:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(path, target, id=f"{path.relative_to(ROOT)} -> {target}")


@pytest.mark.parametrize(("path", "target"), list(links()))
def test_relative_links_lead_somewhere(path: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    there = (path.parent / name).resolve() if name else path
    assert there.exists(), f"{path.name} links to {target}"
    assert not anchor or anchor in slugs(there), f"{path.name} links to {target}"
