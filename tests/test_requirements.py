"""The locks: exact, complete for every Python we name, and within setup.cfg's ranges; every package is installed."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/setup.cfg"))]
RUN = [ROOT / "requirements.txt"]
TEST = [*RUN, ROOT / "requirements-test.txt"]
OF_TORCH = ("cuda-", "nvidia-", "triton")  # it chooses their versions itself


def setup(project: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(project / "setup.cfg")
    return parser


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def requirements(*paths: Path) -> Iterator[Requirement]:
    return (Requirement(line) for path in paths for line in lines(path) if not line.startswith("-"))


def locked(*paths: Path, python: str | None = None) -> dict[str, str]:
    """Name → version, for the Python that runs or another on this platform."""
    environment = {} if python is None else {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for each in requirements(*paths):
        if each.marker is None or each.marker.evaluate(environment):
            assert canonicalize_name(each.name) not in found, f"{each.name} is locked twice"
            (pin,) = each.specifier
            assert pin.operator == "==" and "*" not in pin.version, f"{each} is no exact version"
            found[canonicalize_name(each.name)] = pin.version
    return found


def needs(project: Path, *extras: str) -> Iterator[Requirement]:
    """What a setup.cfg asks for, but for our own packages."""
    parser = setup(project)
    sections = [parser["options"]["install_requires"], *(parser["options.extras_require"][extra] for extra in extras)]
    each = (Requirement(line) for section in sections for line in section.split("\n") if line)
    return (requirement for requirement in each if not requirement.name.startswith("halos-"))


def test_what_the_suite_leaves_out_is_run_by_ci() -> None:
    """Once with the locked versions, once with the newest."""
    words = (ROOT / ".ci/run").read_text()
    for command in ("pytest -q -m slow", "pytest -q plugins/halos-ray"):
        assert words.count(f".venv/bin/python -m {command}") == 2


@pytest.mark.parametrize("python", PYTHONS)
def test_what_setup_cfg_asks_for_is_locked_within_its_ranges(python: str) -> None:
    for requirement in [each for project in PROJECTS for each in needs(project)]:
        assert requirement.specifier.contains(locked(*RUN, python=python)[canonicalize_name(requirement.name)])
    for requirement in needs(ROOT, "hf", "text", "plot", "test"):
        assert requirement.specifier.contains(locked(*TEST, python=python)[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("paths", [RUN, TEST], ids=["run", "test"])
def test_what_is_locked_needs_nothing_else(paths: list[Path]) -> None:
    pins = locked(*paths)
    for name, version in pins.items():
        if importlib.metadata.version(name).partition("+")[0] != version:
            continue  # other versions are installed: CI tests the newest too
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            needed = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and not (name == "torch" and needed.startswith(OF_TORCH)):
                assert requirement.specifier.contains(pins.get(needed, "none")), f"{name} {version} needs {requirement}"


def test_the_lock_of_the_tests_begins_with_the_other() -> None:
    assert [line for line in lines(TEST[1]) if line.startswith("-")] == ["-r requirements.txt"]


def test_an_older_python_gets_no_library_so_that_pip_comes_to_say_which_is_needed() -> None:
    assert set(locked(*TEST, python="3.10")) == {"setuptools"}


def test_every_package_is_installed_with_the_simulator() -> None:
    folders = [path.name for path in sorted((ROOT / "plugins").iterdir()) if path.is_dir()]
    assert lines(ROOT / "plugins/requirements.txt") == ["-e .", *(f"-e plugins/{name}" for name in folders)]


def test_the_pythons_are_the_same_everywhere() -> None:
    third_party = [path.parent for path in ROOT.glob("third_party/*/setup.cfg")]
    assert {setup(each)["options"]["python_requires"] for each in [*PROJECTS, *third_party]} == {f">={PYTHONS[0]}"}
    assert re.findall(r":: (3\.\d+)", setup(ROOT)["metadata"]["classifiers"]) == PYTHONS
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text()
    tools = (ROOT / "pyproject.toml").read_text()
    assert (
        f'python_version = "{PYTHONS[0]}"' in tools and f'target-version = "py{PYTHONS[0].replace(".", "")}"' in tools
    )
