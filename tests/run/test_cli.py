"""The command line, and that a run does the same again."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from halos.config.layers import read
from tests.run.left import RECORDS, ROOT, plugin, python, summary

# The command line


def test_a_run_ends_with_a_table_and_code_0(command, tiny_yaml, tmp_path):
    got = command(
        "c.yaml", "name=mine", "cluster.regions=[{name: '[here]', workers: [1]}]", files={"c.yaml": tiny_yaml()}
    )
    assert (got.code, got.err) == (0, "")
    for part in ("mine", "diloco", "finished", "[here]", "validation loss", "runs/mine"):
        assert part in got.out
    assert summary(tmp_path / "runs" / "mine")["local_steps"] == 8


def test_the_table_has_the_regions_that_ran_though_their_file_is_gone(command, tiny_yaml, tmp_path):
    files = {
        "c.yaml": tiny_yaml(cluster={"env": "env.yaml", "regions": []}),
        "env.yaml": "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n",
        "mover.py": "import os\nfrom halos import hookimpl\n\n"
        "@hookimpl\ndef on_finish(summary): os.remove('env.yaml')\n",
    }
    got = command("c.yaml", "--plugin", "mover.py", files=files)
    assert (got.code, got.err) == (0, "")
    assert not (tmp_path / "env.yaml").exists()
    assert "region-0" in got.out and "region-1" in got.out


def test_show_config_shows_what_would_run_and_runs_nothing(command, tiny_yaml, tmp_path):
    got = command("c.yaml", "policy.outer.lr=0.5", "--show-config", files={"c.yaml": tiny_yaml()})
    assert (got.code, got.err, got.made) == (0, "", set())
    (tmp_path / "shown.yaml").write_text(got.out)
    shown = read(tmp_path / "shown.yaml")
    assert shown["policy"] == {"name": "diloco", "outer": {"name": "sgd", "lr": 0.5}, "fraction": 1.0}
    assert command("shown.yaml", "--show-config").out == got.out


def test_help_names_every_option(command):
    got = command("--help")
    assert (got.code, got.err) == (0, "")
    for part in (
        "CONFIG",
        "key=value",
        "--plugin FILE|MODULE",
        "--without-plugin PACKAGE",
        "--overwrite",
        "--list-plugins",
        "--show-config",
        "--help",
    ):
        assert part in got.out


def test_options_may_stand_anywhere(command, tiny_yaml):
    files = {"c.yaml": tiny_yaml(), "w.py": plugin("pass")}
    shown = command("c.yaml", "--plugin", "w.py", "seed=7", "--show-config", "name=x", files=files)
    assert shown.code == 0 and "seed: 7" in shown.out and "name: x" in shown.out


def test_without_arguments_the_command_says_what_to_try(tmp_path):
    got = python("-m", "halos.run", folder=tmp_path)
    assert (got.returncode, got.stdout) == (2, "")
    assert got.stderr == "error: no configuration given; try: python -m halos.run configs/quickstart.yaml\n"


SCRIPT = str(Path(sys.executable).with_name("halos"))


@pytest.mark.parametrize("start", [["-m", "halos.run"], [SCRIPT]], ids=["module", "script"])
def test_both_commands_start_whatever_files_in_the_working_directory_are_called(tiny_yaml, tmp_path, start):
    """As a module of Python or of a library is; a plugin that is a module there is still found."""
    source = "from halos import hookimpl\n\n\n@hookimpl\ndef on_finish(summary): print('heard', __file__)\n"
    for name in ("random", "typing", "dataclasses", "logging", "json", "torch", "mine"):
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "c.yaml").write_text(tiny_yaml(executor={"name": "timing"}))
    got = python(*start, "c.yaml", "--plugin", "random.py", "--plugin", "mine", folder=tmp_path)
    assert (got.returncode, got.stderr) == (0, "")
    assert sorted(Path(line.split()[1]).name for line in got.stdout.splitlines() if "heard" in line) == [
        "mine.py",
        "random.py",
    ]


def test_a_broken_package_is_left_out_by_the_flag_that_its_line_names(command, tiny_yaml, monkeypatch):
    def load() -> None:
        raise ImportError("no such thing")

    broken = SimpleNamespace(
        metadata={"Name": "halos-broken"}, version="1.2", entry_points=[SimpleNamespace(group="halos", load=load)]
    )
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [broken])
    files = {"c.yaml": tiny_yaml(checkpoint={"every_local_steps": 4})}
    for arguments in (["c.yaml"], ["--list-plugins"], ["--explain", "policy"], ["c.yaml", "--show-config"]):
        got = command(*arguments, files=files)
        assert (got.code, got.made, got.err.count("\n")) == (2, set(), 1)
        assert got.err.startswith("error: plugin halos-broken 1.2 cannot be loaded: ImportError: no such thing (")
        assert got.err.endswith("; to leave it out: --without-plugin halos-broken\n")
        assert command(*arguments, "--without-plugin", "Halos_Broken").code == 0
    assert command("--resume", "runs/run", "budget.local_steps=16", "--without-plugin=halos-broken").code == 0


# The same again


NEOX = {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2}
SLOW = {"regions": [{"workers": [1.0, 0.5]}, {"workers": [0.7]}], "step_time_ms": 100.0}
POLICIES = {
    "diloco": {"name": "diloco"},
    "async_local_sgd": {"name": "async_local_sgd", "grace_seconds": 0.1},
    "halos": {"name": "halos", "local_updates": 2},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_config_does_the_same_bit_for_bit_and_another_seed_does_not(command, tiny_yaml, tmp_path, policy):
    text = tiny_yaml(
        cluster=SLOW, model=NEOX, network={"bandwidth_gbps": 0.01}, policy=POLICIES[policy],
        steps={"name": "by_speed", "base": 3}, budget={"local_steps": 40}, evaluate={"every_local_steps": 20},
        train={"batch_size": 2, "optimizer": {"name": "adamw", "lr": 1e-3}, "clip": 1.0},
    )  # fmt: skip
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        assert command("c.yaml", f"name={name}", f"seed={seed}", files={"c.yaml": text}).code == 0
    runs = tmp_path / "runs"
    assert all((runs / "one" / each).read_bytes() == (runs / "two" / each).read_bytes() for each in RECORDS)
    one, two, other = (torch.load(runs / name / "model.pt", weights_only=True) for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].dim() == 2)
    assert (runs / "one" / "updates.jsonl").read_bytes() != (runs / "other" / "updates.jsonl").read_bytes()  # losses
    first, again = summary(runs / "one"), summary(runs / "two")
    different = {key for key in first if first[key] != again[key]}
    assert different <= {"name", "wall_seconds"}
    assert first["steps"]["committed"] >= 40


@pytest.mark.parametrize("workers", [1, 1000])
@pytest.mark.parametrize("policy", POLICIES)
def test_one_worker_and_a_thousand_are_timed_to_the_end(command, tiny_yaml, tmp_path, policy, workers):
    cluster = {"regions": [{"workers": [1.0] * workers}]}
    text = tiny_yaml(
        cluster=cluster, policy=POLICIES[policy], executor={"name": "timing"}, network={"bandwidth_gbps": 1}
    )
    got = command("c.yaml", f"budget.local_steps={8 * workers}", files={"c.yaml": text})
    assert (got.code, got.err) == (0, "")
    found = summary(tmp_path / "runs" / "run")
    assert found["steps"]["committed"] >= 8 * workers and len(found["workers"]) == workers
    assert not (tmp_path / "runs" / "run" / "model.pt").exists()


# What is left without the policies


def test_without_the_files_in_policies_everything_else_still_works(tmp_path):
    shutil.copytree(ROOT / "halos", tmp_path / "halos", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "halos" / "policies").iterdir():
        file.unlink()
    got = python("-m", "halos.run", "--list-plugins", folder=tmp_path, path=tmp_path)
    assert (got.returncode, got.stderr) == (0, "")
    rows = [re.split(r" {2,}", line.strip()) for line in got.stdout.splitlines()]
    kinds = {row[0] for row in rows if row[2] == "halos"}  # not of packages that are installed
    assert "policy" not in kinds and {"merge rule", "network model", "executor"} <= kinds
    # and a policy from elsewhere runs on what is left
    (tmp_path / "mine.py").write_text(plugin("pass"))
    source = (
        "import halos.run, halos.testing as t; print(t.record(t.tiny(policy={'name': 'mine'}), ['mine.py']).commits)"
    )
    got = python("-c", source, folder=tmp_path, path=tmp_path)
    assert (got.returncode, got.stdout) == (0, "[]\n"), got.stderr
