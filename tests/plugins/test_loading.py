"""Plugins by file and by module: what is loaded, under which name, and what is wrong with one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from halos.errors import UserError
from halos.plugins.loading import load_plugin, reason, source, sources, unique


def test_a_file_is_one_plugin_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["one.py", "package.one", str(tmp_path / "one.py"), "two.py", "./one.py", "package.one"]
    assert unique(names) == ["./one.py", "package.one", "two.py"]


def test_two_files_of_one_name_are_two_modules_and_the_first_can_be_imported_by_it(tmp_path: Path) -> None:
    loaded = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "rainy_plugin.py").write_text(f"NUMBER = {number}\n")
        loaded.append(load_plugin(str(tmp_path / str(number) / "rainy_plugin.py")))
    try:
        assert [module.NUMBER for module in loaded] == [1, 2]
        assert sys.modules["rainy_plugin"] is loaded[0]
    finally:
        for name in ("rainy_plugin", *(module.__name__ for module in loaded)):
            del sys.modules[name]


def test_a_file_is_loaded_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed at once and as long as before, which is what Python would not see; also for whoever imports it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, before = tmp_path / "snowy_plugin.py", set(sys.modules)
    try:
        for number in (1, 2):
            file.write_text(f"NUMBER = {number}\n")
            os.utime(file, (1e9, 1e9))
            module = load_plugin(str(file))
            assert number == module.NUMBER and sys.modules["snowy_plugin"] is module
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def test_a_module_is_loaded_by_its_name() -> None:
    assert load_plugin("json") is json


def test_a_file_that_fails_is_not_kept_and_said_with_its_line(tmp_path: Path) -> None:
    before = set(sys.modules)
    (tmp_path / "stormy_plugin.py").write_text("x = 1\nx / 0\n")
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero \(.*stormy_plugin\.py, line 2\)$"):
        load_plugin(str(tmp_path / "stormy_plugin.py"))
    assert set(sys.modules) == before


def test_a_folder_is_no_plugin_and_says_which_file_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-plugin").mkdir()
    with pytest.raises(UserError, match=r"^plugin my-plugin is a folder; give a file in it, of a package its __init__"):
        load_plugin("my-plugin")


def test_a_reason_is_the_error_and_its_place() -> None:
    assert reason(ValueError("no")) == "ValueError: no"
    assert reason(SyntaxError("bad", ("mine.py", 3, 1, "x ="))) == "SyntaxError: bad (mine.py, line 3)"


def test_the_source_of_a_package_is_that_of_all_its_modules(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, text in (("__init__.py", "A = 1\n"), ("b.py", "B = 2\n"), ("parts/c.py", "C = 3\n")):
        (tmp_path / name).write_text(text)
    assert sources(tmp_path / "__init__.py") == b"__init__.py\nA = 1\nb.py\nB = 2\nparts/c.py\nC = 3\n"
    assert sources(tmp_path / "b.py") == b"B = 2\n"
    assert source(object()) == b""
