"""Every command of the README and of pages in docs runs (training as a timeline, cut short; installing is CI's)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from halos.compare import cli as compare
from halos.config.config import load_config
from halos.config.sections import to_sections
from halos.config.yaml_text import to_yaml
from halos.export import __main__ as export
from halos.run import cli as run
from halos.sweep import cli as sweep
from halos.utilization import __main__ as utilization

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
MAINS = {
    "python -m halos.run": run.main,
    "python -m halos.sweep": sweep.main,
    "python -m halos.utilization": utilization.main,
    "python -m halos.export": export.main,
    "python -m halos.compare": compare.main,
}


def commands(text: str) -> list[str]:
    """The lines of its blocks marked `bash`, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = commands(README)
RUNS = [each for text in PAGES.values() for each in commands(text) if each.startswith(tuple(MAINS))]


@pytest.mark.parametrize("command", RUNS)
def test_the_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module, arguments = " ".join(command.split()[:3]), shlex.split(command)[3:]
    if module == "python -m halos.run" and not any(each.startswith("--") for each in arguments):
        arguments += ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}"]
    if module == "python -m halos.sweep" and "--dry-run" not in arguments:
        arguments += ["executor.name=timing", "budget.local_steps=1", "--out", str(tmp_path / "sweep"), "--jobs", "1"]
    if module == "python -m halos.export":
        assert arguments[0] == "runs/quickstart"
        arguments = [str(quickstart_finished(tmp_path / "run")), *arguments[1:-1], str(tmp_path / arguments[-1])]
    if module == "python -m halos.compare":
        assert arguments[0] == "runs"
        arguments = [str(two_runs(tmp_path / "runs")), *arguments[1:]]
    assert MAINS[module](arguments) == 0


def quickstart_finished(folder: Path) -> Path:
    """Its run folder as far as it is exported, without its minutes of training."""
    config, plugins = load_config("configs/quickstart.yaml")
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(to_sections(config, plugins)))
    (folder / "summary.json").write_text('{"finished": true}')
    torch.save(config.model.build(config.data.vocabulary(), seed=0).state_dict(), folder / "model.pt")
    return folder


def two_runs(folder: Path) -> Path:
    """Two policies' runs, as timelines."""
    for policy in ("diloco", "async_local_sgd"):
        short = ["executor.name=timing", "budget.local_steps=1", f"out={folder / policy}"]
        assert run.main([f"configs/small/{policy}.yaml", *short]) == 0
    return folder


def test_there_is_nothing_else_to_type_than_what_is_tested_here_or_by_ci() -> None:
    others = [command for command in COMMANDS if command not in RUNS]
    assert [command.split(" && ")[-1] for command in others] == [
        ".venv/bin/python -m halos.run configs/quickstart.yaml",
        ".venv/bin/python -m pytest -q -n 2 --dist worksteal",
    ]
    taken = r"^python3 -m venv "  # from the README, by CI
    assert f"grep '{taken}' README.md" in (ROOT / ".ci/run").read_text()
    assert others == [line for line in README.splitlines() if re.match(taken, line)]
    assert len(RUNS) >= 6


def test_the_readmes_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [text for language, text in BLOCKS if language == "yaml"]
    Path("config.yaml").write_text(example)
    assert run.main(["config.yaml", "executor.name=timing", "out=run", "budget.local_steps=64"]) == 0
