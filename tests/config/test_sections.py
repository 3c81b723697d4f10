"""Dataclasses become sections again, from which they can be built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from halos.config.builder import Builder
from halos.config.sections import sections_of, to_sections
from halos.plugins.registry import Plugins
from halos.rules.merge import MergeRule

PLUGINS = Plugins()


@dataclass
class Several:
    pair: tuple[float, int] = (0.0, 0)
    text: str = ""
    path: Optional[Path] = None
    anything: Any = None
    rules: list[MergeRule] = field(default_factory=list)
    by_name: dict[str, MergeRule] = field(default_factory=dict)
    perhaps: Optional[MergeRule] = None
    hidden: int = field(default=3, init=False)


@dataclass
class Somewhere:
    folder: Path = Path("here")


def build(**section: Any) -> Any:
    return Builder(PLUGINS).build(Several, section, "top")


def test_sections_and_back_is_the_same() -> None:
    several = build(pair=[1, 2], path="/a", rules=["adam"], by_name={"a": "sgd"}, perhaps={"name": "sgd", "lr": 2})
    sections = to_sections(several, PLUGINS)
    assert (sections["pair"], sections["path"], sections["perhaps"]) == ([1.0, 2], "/a", {"name": "sgd", "lr": 2.0})
    assert (sections["rules"][0]["name"], sections["by_name"]["a"]["name"]) == ("adam", "sgd")
    assert "hidden" not in sections
    assert build(**sections) == several


def test_a_default_that_is_a_relative_path_is_written_out_as_an_absolute_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert to_sections(Somewhere(), PLUGINS) == {"folder": str(tmp_path / "here")}


def test_no_text_is_taken_for_a_reference_when_it_is_read_again() -> None:
    built = build(text="${a}", path="/${b}", anything=["\\${c}"])
    sections = to_sections(built, PLUGINS)
    assert (sections["text"], sections["path"], sections["anything"]) == ("\\${a}", "/\\${b}", ["\\\\\\${c}"])
    assert sections_of(built, PLUGINS)["text"] == "${a}"
