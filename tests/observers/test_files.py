"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.errors import UserError
from halos.observers.files import replacing, writing


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("summary.json", "new")]


def test_what_goes_wrong_while_it_is_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("summary.json", "old")]


def test_an_error_of_the_system_is_one_line_about_the_file() -> None:
    with pytest.raises(UserError) as raised, writing(Path("runs/trace.json")):
        raise OSError(28, "No space left on device")
    assert str(raised.value) == (
        "runs/trace.json cannot be written: No space left on device; what was written before is intact"
    )


def test_a_folder_that_is_not_there_is_such_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "trace.json"
    said = r"trace\.json cannot be written: No such file or directory"
    with pytest.raises(UserError, match=said), replacing(path) as temporary:
        temporary.write_text("new")
