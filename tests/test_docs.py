"""The documentation as it is written: its signatures, keys, examples and links are those of the code."""

from __future__ import annotations

import configparser
import importlib.util
import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import halos
from halos.config.yaml_text import to_yaml
from halos.plugins.registry import KINDS, Plugins, hookspecs
from halos.run.cli import main
from halos.sweep.cells import Cells
from halos.sweep.grid import asked
from halos.testing import tiny

ROOT = Path(__file__).parents[1]
PLUGINS, TESTING, CONFIG = ROOT / "docs/plugins.md", ROOT / "docs/testing.md", ROOT / "docs/config.md"
MEASURES, NETWORK = ROOT / "docs/measures.md", ROOT / "docs/network.md"
STREAMING = ROOT / "plugins/halos-streaming-diloco/halos_streaming_diloco.py"
MODULES = ROOT / "docs/modules.md"
OPTIMIZERS = ROOT / "docs/inner_optimizers.md"
AGGREGATORS = ROOT / "docs/aggregators.md"
REFERENCE = ROOT / "docs/reference/plugins.md"
MOST_LINES = {"docs/plugins.md": 300, "docs/mistakes.md": 80}
MARKDOWN = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
NO_RUNS = {"env", "utilization", "sweeps", "papers"}  # folders of other configs
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


def rows(text: str) -> list[list[str]]:
    """The cells of the first table's rows, without its header."""
    table = re.search(r"^\|.*\|\n\|[-| ]+\|\n((?:\|.*\|\n)*)", text, re.M)
    if table is None:
        return []
    return [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[1].splitlines()
    ]


def titled_files(path: Path) -> dict[str, str]:
    """The code blocks under a line that is a file's name or ends in one and a colon, by that name."""
    return dict(re.findall(r"`([\w-]+\.\w+)`:?\n\n```\w+\n(.*?)^```$", path.read_text(), re.M | re.S))


def commands(path: Path) -> list[str]:
    consoles = re.findall(r"^```console\n(.*?)^```$", path.read_text(), re.M | re.S)
    return [line[2:] for console in consoles for line in console.splitlines() if line.startswith("$ ")]


# docs/reference


def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "docs/make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = maker()


@pytest.mark.parametrize("name", MAKE.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    said = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert said == MAKE.PAGES[name](), f"docs/reference/{name} is not that of this code; remake it: python docs/make.py"


def test_the_reference_of_plugins_has_all_there_is() -> None:
    text = (ROOT / "docs/reference/plugins.md").read_text(encoding="utf-8")
    hooks = [each for name, each in vars(hookspecs).items() if name.startswith(("register_", "on_"))]
    assert len(hooks) > 10
    assert [row[0] for row in rows(section(REFERENCE, "Hooks"))] == [f"`{MAKE.signature(hook)}`" for hook in hooks]
    missing = [name for name in halos.__all__ if not re.search(rf"`{name}\b|^### {name}$", text, re.M)]
    assert missing == []
    for kind, (protocol, _) in KINDS.items():
        methods = [name for name, each in vars(protocol).items() if inspect.isfunction(each) and name[0] != "_"]
        assert all(f"\n- `{name}(" in section(REFERENCE, kind) for name in methods), kind


def test_each_field_of_a_record_says_what_it_is() -> None:
    silent = [row[0] for heading in (each.__name__ for each in MAKE.TOLD) for row in rows(section(REFERENCE, heading))
              if not row[2]]  # fmt: skip
    assert silent == []


def test_symbols_in_prose_stay_and_emphasis_is_one() -> None:
    assert MAKE.escaped("an *optimum* θ* at `a*b`, w*, too") == r"an *optimum* θ\* at `a*b`, w\*, too"


# docs/plugins.md, docs/testing.md


def test_the_pages_are_short_enough_to_be_read() -> None:
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in MOST_LINES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES[path]} == {}
    before = (ROOT / "README.md").read_text(encoding="utf-8").split("```text\n")[0]
    assert before.count("\n") <= 90, "two screens before the tree"


def test_the_example_of_a_module_is_short_and_runs_trained_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = titled_files(MODULES)
    assert len([line for line in files["convnet.py"].splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).write_text(text)
    for command in commands(MODULES):
        assert main([*shlex.split(command)[3:], *QUIET]) == 0
    trained, timed = (json.loads(Path(f"runs/{name}/summary.json").read_text()) for name in ("images", "time"))
    # 4 · 9 + 4 and 144 · 10 + 10 weights and biases of its layers, 4 + 4 of its norm: 1,498 numbers.
    assert trained["simulated_seconds"] == timed["simulated_seconds"] and trained["bytes"] == timed["bytes"]
    transfers = Path("runs/images/transfers.jsonl").read_text().splitlines()
    assert {json.loads(line)["bytes"] for line in transfers} == {2 * 3 * 4 * 1498}  # 2 (M − 1) payloads in a ring
    # One in eight is log 8 = 2.08; and labels are learned, with the buffers that evaluations have.
    assert trained["final_validation_loss"] < 1.0
    model = torch.load("runs/images/model.pt", weights_only=True)
    assert int(model["1.num_batches_tracked"]) > 0 and float(model["1.running_var"].min()) >= 0


def test_the_example_of_an_inner_optimizer_conforms_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {**titled_files(OPTIMIZERS), "idea.yaml": titled_files(PLUGINS)["idea.yaml"]}.items():
        Path(name).write_text(text)
    running, testing = commands(OPTIMIZERS)
    words = [sys.executable, *shlex.split(testing)[1:], "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert re.search(r"^26 passed, 6 skipped", done.stdout, re.M), done.stdout + done.stderr
    assert main([*shlex.split(running)[3:], *QUIET]) == 0
    # What both sgd and Lion have is kept of idea.yaml.
    assert yaml.safe_load(Path("runs/signs/config.yaml").read_text())["train"]["optimizer"]["lr"] == 0.05


def test_the_example_of_an_aggregator_is_short_conforms_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = titled_files(AGGREGATORS) | {"idea.yaml": titled_files(PLUGINS)["idea.yaml"]}
    assert len([line for line in files["coordinate_median.py"].splitlines() if line.strip()]) <= 60
    for name, text in files.items():
        Path(name).write_text(text)
    running, testing = commands(AGGREGATORS)
    words = [sys.executable, *shlex.split(testing)[1:], "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert re.search(r"^12 passed", done.stdout, re.M), done.stdout + done.stderr
    assert main([*shlex.split(running)[3:], *QUIET]) == 0
    # 4 workers pass 3 payloads of 281,706,496 bytes on, at 1 Gbit/s; 30 rounds of the slowest one's 8 / 0.4 steps.
    seconds = json.loads(Path("runs/median/summary.json").read_text())["simulated_seconds"]
    assert seconds == pytest.approx(30 * (8 * 0.1 / 0.4 + 3 * 281706496 * 8 / 1e9), rel=1e-12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of docs/plugins.md and docs/testing.md, where their commands can be run."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in (titled_files(PLUGINS) | titled_files(TESTING)).items():
        if name != "setup.cfg":
            (folder / name).write_text(text)
    return folder


@pytest.mark.long
def test_the_example_of_a_network_in_flows_conforms_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bus.py").write_text(titled_files(NETWORK)["bus.py"])
    suite = "import halos.testing.conformance as c\nclass TestBus(c.NetworkConformance):\n    plugins = ('bus.py',)\n"
    Path("test_bus.py").write_text(suite)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bus.py"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert re.search(r"^\d\d passed", done.stdout, re.M), done.stdout + done.stderr
    # Two workers compute for 2 s. An all-reduce moves 2 · 8 bytes, 128 bits by 8 bit/s, and a millisecond.
    (tmp_path / "c.yaml").write_text(to_yaml(tiny() | {"network": {"name": "bus", "gbps": 8e-9}}))
    assert main(["c.yaml", "--plugin", "bus.py", "out=run", *QUIET, "budget.local_steps=4"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["simulated_seconds"] == 2.0 + 16.0 + 0.001


def test_the_links_of_the_documented_csv_are_those_of_a_network(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text(titled_files(NETWORK)["links.csv"])
    blocks = re.findall(r"^```yaml\n(network:.*?)^```$", NETWORK.read_text(), re.M | re.S)
    regions = {"cluster": {"regions": [{"workers": [1.0]}, {"workers": [1.0]}]}}
    (tmp_path / "c.yaml").write_text(to_yaml(tiny(**regions) | yaml.safe_load(blocks[0])))
    assert main([str(tmp_path / "c.yaml"), f"out={tmp_path / 'run'}", *QUIET]) == 0
    assert len(yaml.safe_load((tmp_path / "run/config.yaml").read_text())["network"]["changes"]) == 4


@pytest.mark.parametrize("command", [each for each in commands(PLUGINS) if "halos.run" in each])
def test_the_documented_runs_run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "halos.run"]
    assert main(words[3:]) == 0
    if "--explain" in words:
        return
    name = next((word.removeprefix("name=") for word in words if word.startswith("name=")), "idea")
    assert json.loads((folder / "runs" / name / "summary.json").read_text())["local_steps"] >= 960
    if name == "lateness":
        late = json.loads((folder / "runs/lateness/summary.json").read_text())["observers"]["lateness"]
        # Of 120 updates, the fast workers' come 2 or 3 versions late, the slow ones' later, the first at once.
        assert (sum(late.values()), late["0"], max(late, key=late.get)) == (120, 1, "3")


def test_every_example_is_run() -> None:
    brought = [name for name in titled_files(PLUGINS) if name.endswith(".py")]
    named = " ".join(commands(PLUGINS))
    assert [name for name in brought if name not in named] == []
    kinds = ("sync_policies", "merge_rules", "network_models", "models", "data_sources", "observers")
    code = "".join(titled_files(PLUGINS).values())
    assert all(f"def register_{kind}(" in code for kind in kinds) and "def on_commit(" in code


@pytest.mark.long
def test_the_documented_tests_pass(folder: Path) -> None:
    (command,) = [each for each in commands(TESTING) if "pytest" in each]
    words = [sys.executable, *shlex.split(command)[1:], "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d+ passed", done.stdout, re.M)


def test_an_installed_package_is_found_by_the_documented_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip makes of the documented setup.cfg, without pip."""
    files = titled_files(PLUGINS)
    setup = configparser.ConfigParser()
    setup.read_string(files["setup.cfg"])
    name, version = setup["metadata"]["name"], setup["metadata"]["version"]
    (tmp_path / f"{setup['options']['py_modules']}.py").write_text(files["partial.py"])
    entries = setup["options.entry_points"]
    assert list(entries) == ["halos"]
    info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[halos]\n{entries['halos'].strip()}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    component = Plugins().components["policy"]["partial"]
    assert (component.origin, component.cls.__module__) == (f"{name} {version}", "halos_partial")


# docs/config.md, docs/measures.md


def keys(heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows(section(MEASURES, heading))]


def test_the_run_folder_holds_what_is_documented(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = tmp_path / "run"
    assert main(["idea.yaml", "policy.name=async_local_sgd", "observers.results=true", f"out={run}"]) == 0
    first = {path.name: json.loads(path.open().readline()) for path in run.glob("*.jsonl")}
    assert {f"`{name}`" for name in first} <= set(headings(MEASURES))
    for name, line in first.items():
        assert keys(f"`{name}`") == list(line), name
    assert keys("A commit's contributions") == list(first["commits.jsonl"]["contributions"][0])
    assert keys("The ways of its updates, end to end") == list(
        first["commits.jsonl"]["contributions"][0]["end_to_end"][0]
    )
    summary = json.loads((run / "summary.json").read_text())
    assert keys("`summary.json`") == list(summary)
    assert keys("A worker's line in the summary") == list(summary["workers"][0])
    assert keys("`results.pt`") == list(torch.load(run / "results.pt", weights_only=False))
    told = section(CONFIG, "The run folder")
    for path in run.iterdir():
        assert path.name.split(".v2")[0].split(".tfevents")[0] in told, f"{path.name} is not documented"


def test_what_is_null_in_timing_mode_is_what_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(to_yaml(tiny(policy={"name": "async_local_sgd"}, executor={"name": "timing"})))
    assert main(["c.yaml", "out=run", *QUIET]) == 0
    found = {f"`{path.name}`": json.loads(path.open().readline()) for path in Path("run").glob("[!e]*.jsonl")}
    (contribution,) = found["`commits.jsonl`"]["contributions"]
    found["A commit's contributions"] = contribution
    found["The ways of its updates, end to end"] = contribution["end_to_end"][0]
    found["`summary.json`"] = json.loads(Path("run/summary.json").read_text())
    nulls = {heading: {row[0].strip("`"): row[3] for row in rows(section(MEASURES, heading))} for heading in found}
    assert sum("timing mode" in when for each in nulls.values() for when in each.values()) >= 8
    for heading, record in found.items():
        for key, when in nulls[heading].items():
            value = record[key]
            if "timing mode" in when and key != "data":
                nothing = {"hop": {"mean": None, "max": None}, "end_to_end": {"mean": None, "max": None}}
                assert value is None or value == nothing or value == [], (heading, key, value)
            elif when == "" and key not in ("losses", "policy_report"):
                assert value is not None, (heading, key)


def test_the_example_of_drift_in_units_of_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = titled_files(MEASURES).values()
    assert sum(line.strip() != "" for line in code.splitlines()) <= 20
    (tmp_path / "drift_in_updates.py").write_text(code)
    (tmp_path / "c.yaml").write_text(to_yaml(tiny()))
    halos_ = ["policy.local_updates=1", "policy.outer={name: sgd, lr: 1.0}", "policy.local={name: sgd, lr: 1.0}"]
    for policy, more in {"async_local_sgd": ["policy.outer={name: sgd, lr: 1.0}"], "halos": halos_,
                         "streaming_diloco": ["policy.fragments=1", "policy.tau=1"]}.items():  # fmt: skip
        plugin = ["--plugin", str(STREAMING)] if policy == "streaming_diloco" else []
        assert main(["c.yaml", f"policy={{name: {policy}}}", f"out={policy}", *more, *QUIET, *plugin]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["drift_in_updates.py", "async_local_sgd", "halos", "streaming_diloco"])
    runpy.run_path("drift_in_updates.py", run_name="__main__")
    told = capsys.readouterr().out.splitlines()
    # Asynchronous, two equal workers, 1 − θ times 0.9 a step: both start at 0, are merged at 0 and 0.19, go on from
    # 0.19 and 0.38, and are merged at 0.38 and 0.38 + 0.81 · 0.19. They bring 0.19 twice, 0.81 and 0.62 times that.
    ratios = [0.0, 1.0, 0.19 / (0.81 * 0.19), 0.81 / 0.62]
    said = f"drift {sum(ratios) / 4:.2f} ‖Δ‖, at most {max(ratios):.2f}; 0.75 versions"
    assert told[0] == f"async_local_sgd: {said}"
    assert [line.split(":")[0] for line in told[1:]] == ["halos", "streaming_diloco"]
    assert all(re.search(r"drift \d+\.\d\d ‖Δ‖, at most \d+\.\d\d; \d+\.\d\d versions$", line) for line in told[1:])


# README, configs, links


def test_the_readme_has_a_line_for_every_package_of_halos_and_no_other() -> None:
    """Its block marked `text` has lines of a path, two or more spaces, and a description."""
    (block,) = re.findall(r"^```text\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    listed = [line[1] for line in re.finditer(r"^(\S+) {2,}\S", block, re.M)]
    assert len(listed) == len(block.splitlines()) == len(set(listed))
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "halos").rglob("__init__.py")}
    assert {name for name in listed if name.split("/")[0] == "halos"} == packages
    assert [name for name in listed if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_loads_and_runs_one_tiny_round(path: Path, tmp_path: Path) -> None:
    changes = ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}", *QUIET]
    if "policy" not in yaml.safe_load(path.read_text()) and path.name == "common.yaml":  # what others extend
        changes += ["policy.name=diloco", "steps.name=fixed"]
    assert main([str(path), *changes]) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["commits"] == 1


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_choice_of_a_grid_is_one_of_a_run(path: Path, tmp_path: Path) -> None:
    grid, known, cells = asked([str(path)], ["budget.local_steps=1"]), set[tuple[str, object]](), []
    for cell in grid.cells():
        if not known.issuperset(cell.labels.items()):
            cells.append(cell)
            known.update(cell.labels.items())
    assert len(known) == sum(len(axis.choices) for axis in grid.axes)
    assert {cell.config.seed for cell in Cells(tmp_path).made(cells)} == {0, 1, 2}


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
