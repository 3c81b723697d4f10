"""Every command of the README runs (training ones as a timeline, cut short; installing is what CI does)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from halos.run import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if line.strip()
]
RUNS = [command for command in COMMANDS if command.startswith("python -m halos.run")]


@pytest.mark.parametrize("command", RUNS)
def test_the_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)[3:]
    if not any(each.startswith("--") for each in arguments):
        arguments += ["executor.name=timing", "budget.local_steps=1", f"out={tmp_path / 'run'}"]
    assert main(arguments) == 0


def test_there_is_nothing_else_to_type_than_what_is_tested_here_or_by_ci() -> None:
    others = [command for command in COMMANDS if command not in RUNS]
    ci = (ROOT / ".ci/run").read_text()
    assert others == [
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install -c requirements.txt -e .",
        "pip install -c requirements.txt -e '.[test]'",
        "pytest",
    ]
    assert "pip install -q -c requirements.txt -e '.[test]'" in ci and "\npytest -q" in ci
    assert len(RUNS) >= 6


def test_the_readmes_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [text for language, text in BLOCKS if language == "yaml"]
    Path("config.yaml").write_text(example)
    assert main(["config.yaml", "executor.name=timing", "out=run", "budget.local_steps=64"]) == 0
