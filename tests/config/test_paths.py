"""Relative paths: beside the file in which they were written, or else in the working directory; always absolute."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from halos.config.paths import absolute, expanded
from halos.config.written import Written, written


def text(value: str, folder: Path) -> Written:
    found = written(value, folder)
    assert isinstance(found, Written)
    return found


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a config file, in the working directory."""
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "conf"


def test_what_is_there_is_taken_from_beside_the_file(conf: Path) -> None:
    for folder in (conf, conf.parent):
        (folder / "both").write_text("")
    (conf / "near").write_text("")
    (conf.parent / "far").write_text("")
    assert absolute(text("both", conf)) == str(conf / "both")
    assert absolute(text("near", conf)) == str(conf / "near")
    assert absolute(text("../far", conf)) == str(conf.parent / "far")
    assert absolute(text("far", conf)) == str(conf.parent / "far")  # not there: from the working directory
    assert absolute(text("nowhere", conf)) == str(conf.parent / "nowhere")


def test_what_no_file_says_is_taken_from_the_working_directory(conf: Path) -> None:
    (conf / "near").write_text("")
    assert absolute("near") == str(conf.parent / "near")
    assert absolute("./conf/../near") == str(conf.parent / "near")


def test_the_beginning_of_several_names_counts_as_being_there(conf: Path) -> None:
    for name in ("pair.bin", "pair.idx", "config.yaml"):
        (conf / name).write_text("")
    (conf.parent / "config").mkdir()
    assert absolute(text("pair", conf)) == str(conf / "pair")
    assert absolute(text("pai", conf)) == str(conf.parent / "pai")
    assert absolute(text("config", conf)) == str(conf.parent / "config")  # there is something by just that name


def test_an_absolute_path_is_what_it_is_and_a_tilde_is_the_home(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute(text("/data/a", conf)) == "/data/a"
    assert absolute(text("~/a", conf)) == absolute("~/a") == "/home/me/a"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a/" * 3000, "\n"])
def test_what_is_no_name_of_a_file_does_no_harm(name: str, conf: Path) -> None:
    assert absolute(text(name, conf)).startswith(str(conf.parent))


def test_somebody_elses_home_is_found_and_a_tilde_elsewhere_is_a_character(conf: Path) -> None:
    root = pwd.getpwuid(0)
    assert expanded(f"~{root.pw_name}/a") == f"{root.pw_dir}/a"
    assert [expanded(text) for text in ("a/~", "./~", "~nobody-is-called-so/a")] == [
        "a/~", "./~", "~nobody-is-called-so/a",
    ]  # fmt: skip
    assert absolute(text("./~", conf)) == str(conf.parent / "~")
