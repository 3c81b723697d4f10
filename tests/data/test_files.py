"""Which files a path stands for. Folders, patterns and the standard library: test_text.py."""

from pathlib import Path

import pytest

from halos.data.files import File, find
from halos.errors import ConfigError


def test_a_file_knows_whether_it_was_given_itself_and_whose_source_it_is(tmp_path: Path) -> None:
    for name in ("a/x.txt", "a/y.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    inside = find([tmp_path], None)
    assert [(file.name, file.source, file.named) for file in inside] == [
        ("a/x.txt", 0, False),
        ("a/y.txt", 0, False),
        ("b.txt", 1, False),
    ]
    alone = str(tmp_path / "b.txt")
    assert find([tmp_path / "b.txt"], None) == [File("b.txt", alone, 4, 0, True)]
    assert [file.source for file in find([tmp_path / "b.txt", tmp_path / "a"], None)] == [0, 1, 1]


def test_a_path_without_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=r"^path: '.*empty' holds no readable text"):
        find([tmp_path / "empty"], None)
