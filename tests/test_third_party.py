"""A plugin by somebody else: installed into a clean environment beside halos, listed, run and removed again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "third_party" / "example-variant"
HERE = list(importlib.metadata.distributions())  # of the tests' own environment


class Environment:
    """A virtual environment with the libraries of the one the tests run in, but neither its halos nor its plugins."""

    package: Path  # what the plugin was installed from

    def __init__(self, folder: Path, distributions: Iterable[importlib.metadata.Distribution]) -> None:
        self.work = folder / "work"  # an empty folder to run in: nothing is imported from there
        self.work.mkdir(parents=True)
        venv.create(folder / "venv", symlinks=True)
        self.site = next((folder / "venv").rglob("site-packages"))
        libraries = link_libraries(distributions, folder / "libraries")
        (self.site / "libraries.pth").write_text("".join(f"{each}\n" for each in libraries))

    def python(self, *arguments: object) -> str:
        """What `python ARGUMENTS` prints; it has to succeed."""
        foreign = ("PYTHON", "PIP_", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
        command = [str(self.site.parents[2] / "bin" / "python"), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, *projects: Path) -> None:
        """From their sources, without asking any index for anything."""
        offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
        self.python("-m", "pip", "install", *offline, *projects)

    def origins(self) -> dict[str, str]:
        """`--list-plugins`: where each policy comes from."""
        rows = [
            re.split(r" {2,}", line.strip()) for line in self.python("-m", "halos.run", "--list-plugins").splitlines()
        ]
        assert rows[0] == ["kind", "name", "from", "what"]
        return {name: origin for kind, name, origin, *_ in rows if kind == "policy"}


def link_libraries(distributions: Iterable[importlib.metadata.Distribution], into: Path) -> list[Path]:
    """A folder of links for every folder that these are installed in, without what belongs to halos or its plugins."""
    sites: dict[Path, None] = {}  # in the order in which they are searched
    ours: set[str] = set()
    for each in distributions:
        if each.metadata["Name"] == "halos-simulator" or any(entry.group == "halos" for entry in each.entry_points):
            ours |= {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}
        else:
            sites[Path(str(each.locate_file("")))] = None
    folders = [into / str(number) for number in range(len(sites))]
    for site, folder in zip(sites, folders):
        folder.mkdir(parents=True)
        for entry in site.iterdir():
            if entry.name not in ours and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folders


def installed_elsewhere(folder: Path) -> list[importlib.metadata.Distribution]:
    """A plugin and a library that are installed where the tests run, as pip leaves them."""
    module = (PACKAGE / "noloco_gossip.py").read_text().replace('"noloco_gossip"', '"someones"')
    entry_points = {"someones_plugin": "[halos]\nsomeones = someones_plugin\n", "someones_library": ""}
    for name, text in entry_points.items():
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(module)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(text)
        (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
    return list(importlib.metadata.distributions(path=[str(folder)]))


def sources(project: Path, into: Path, *names: str) -> Path:
    """A copy to build from, so that nothing is written into the repository and nothing left over there is packed."""
    into.mkdir()
    for name in names:
        if (project / name).is_dir():
            shutil.copytree(project / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(project / name, into / name)
    return into


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("somebody")
    made = Environment(folder, [*HERE, *installed_elsewhere(folder / "elsewhere")])
    project = ("setup.cfg", "pyproject.toml", "README.md")
    made.package = sources(PACKAGE, folder / "package", *project, "noloco_gossip.py")
    made.install(sources(ROOT, folder / "halos", *project, "halos"), made.package)
    return made


def test_the_environment_has_halos_and_the_plugin_of_its_own_and_no_other(environment: Environment) -> None:
    names = "halos, noloco_gossip, someones_library"
    imported = environment.python("-c", f"import {names}\nfor each in {names}: print(each.__file__)").split()
    site = environment.site
    assert imported[:2] == [str(site / "halos" / "__init__.py"), str(site / "noloco_gossip.py")]
    assert not imported[2].startswith(str(site))  # a library of the tests' own environment, and none of
    with pytest.raises(AssertionError, match=r"ModuleNotFoundError.*someones_plugin"):  # its plugins
        environment.python("-c", "import someones_plugin")
    origins = environment.origins()
    assert origins.pop("noloco_gossip") == "noloco-gossip 0.1.0"
    assert "diloco" in origins
    assert set(origins.values()) == {"halos"}  # not even of those installed where the tests run


def test_its_config_runs_there(environment: Environment, tmp_path: Path) -> None:
    config = PACKAGE / "noloco_gossip.yaml"
    assert "plugins" not in yaml.safe_load(config.read_text())  # it is found because it is installed
    out = tmp_path / "run"
    changes = ["executor.name=timing", "budget.local_steps=3072", "observers.progress=false", f"out={out}"]
    environment.python("-m", "halos.run", config, *changes)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["finished"] is True and summary["policy"] == "noloco_gossip"
    assert summary["versions"]["halos"] == "0.1.0" and "noloco-gossip 0.1.0" in summary["versions"]
    # Of 32 steps a round at speed 1 the six take 32, 32, 26, 32, 16 and 23: 161, so that 20 rounds make up 3,072.
    assert summary["steps"] == {"trained": 3220, "committed": 3220, "dropped": 0, "in_flight": 0, "lost": 0}
    assert summary["commits"] == 20
    assert summary["policy_report"]["exchanges"] == 20 * 3
    # Each of three pairs sends four messages of 281,706,496 bytes a round, and nobody sends any other.
    transfers = [json.loads(line) for line in (out / "transfers.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in transfers] == ["send"] * 240
    assert sum(summary["bytes"].values()) == 240 * 281_706_496


def test_uninstalled_it_is_gone_and_halos_still_works(environment: Environment) -> None:
    environment.python("-m", "pip", "uninstall", "-y", "noloco-gossip")
    try:
        assert set(environment.origins().values()) == {"halos"}
    finally:
        environment.install(environment.package)
