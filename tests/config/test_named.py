"""`observers.extra`: which observers there are is said by its keys, and with which options by what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from halos.config.config import Config, load_config, resolved
from halos.config.sections import to_sections
from halos.errors import ConfigError
from halos.testing import tiny

COUNTERS = """
from dataclasses import dataclass
from halos import hookimpl, require

@dataclass
class Counter:
    most: int = 10
    label: str = ""

    def __post_init__(self):
        require(self.most > 0, "most", self.most, "a positive number")

    @hookimpl
    def on_commit(self, commit): pass

@dataclass
class Other(Counter): pass

@hookimpl
def register_observers(register):
    register("counter", Counter)
    register("other", Other)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "counters.py").write_text(COUNTERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def extra(config: Config) -> dict[str, tuple[str, int]]:
    return {name: (type(each).__name__, each.most) for name, each in config.observers.extra.items()}  # type: ignore[attr-defined]


def built(given: Any) -> dict[str, tuple[str, int]]:
    return extra(resolved(tiny(observers={"extra": given}), ["counters.py"])[0])


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {}),
        ({"counter": {}}, {"counter": ("Counter", 10)}),
        ({"counter": True}, {"counter": ("Counter", 10)}),
        ({"other": {"most": 3}, "counter": {"most": 2}}, {"other": ("Other", 3), "counter": ("Counter", 2)}),
        ({"counter": None, "other": True}, {"other": ("Other", 10)}),
        ({"counter": False, "nothing_of_that_name": False}, {}),
        ({"counter": {"name": "counter", "most": 4}}, {"counter": ("Counter", 4)}),
    ],
)
def test_the_keys_are_names_and_what_is_there_are_options(folder: Path, given: Any, found: Any) -> None:
    assert list(built(given).items()) == list(found.items()), "in the order given"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), {"counter": 5}),
        (("observers.extra.counter.label=007",), {"counter": 5}),
        (("observers.extra.counter.most=6",), {"counter": 6}),
        (("observers.extra.counter={most: 7}",), {"counter": 7}),
        (("observers.extra.counter=null",), {}),
        (("observers.extra.counter=off",), {}),
        (("observers.extra.counter=true",), {"counter": 10}),
        (("observers.extra.counter=false", "observers.extra.counter.label=x"), {"counter": 5}),
        (("observers.extra.other={}",), {"counter": 5, "other": 10}),
    ],
)
def test_layers_change_options_and_turn_off_what_is_on_below(folder: Path, arguments: Any, found: Any) -> None:
    (folder / "below.yaml").write_text(yaml.safe_dump(tiny(observers={"extra": {"counter": {"most": 5}}})))
    (folder / "above.yaml").write_text("extends: below.yaml\nname: above\n")
    config = load_config("above.yaml", arguments, ["counters.py"])[0]
    assert {name: most for name, (_, most) in extra(config).items()} == found
    if "observers.extra.counter.label=007" in arguments:
        assert config.observers.extra["counter"].label == "007"  # type: ignore[attr-defined]


def test_a_resolved_configuration_is_one_again(folder: Path) -> None:
    config, plugins = resolved(tiny(observers={"extra": {"counter": {"most": 3}, "other": False}}), ["counters.py"])
    section = to_sections(config, plugins)
    assert section["observers"]["extra"] == {"counter": {"name": "counter", "most": 3, "label": ""}}
    assert to_sections(*resolved(section)) == section


def test_references_lead_into_options_and_out_of_them(folder: Path) -> None:
    observers = {"extra": {"counter": {"most": "${steps.base}"}, "other": "${observers.trace}"}, "trace": True}
    assert extra(resolved(tiny(observers=observers), ["counters.py"])[0]) == {
        "counter": ("Counter", 2),
        "other": ("Other", 10),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"countr": {}},
            r"observers\.extra\.countr: 'countr' is not installed \(did you mean 'counter'\?\); installed:",
        ),
        (
            {"countr": False},
            r"observers\.extra\.countr: is off, but no observer has that name \(did you mean 'counter'",
        ),
        ({"counter": 3}, r"observers\.extra\.counter: 3 is not a section of keys and values; {} or true turns it on"),
        ({"counter": "other"}, r"observers\.extra\.counter: 'other' is not a section of keys"),
        ({"counter": []}, r"observers\.extra\.counter: \[\] is not a section of keys"),
        (
            {"counter": {"name": "other"}},
            r"observers\.extra\.counter\.name: 'other' is not counter, which its key says",
        ),
        ({"counter": {"mots": 3}}, r"observers\.extra\.counter\.mots: no such key \(did you mean 'most'\?\)"),
        ({"counter": {"most": "x"}}, r"observers\.extra\.counter\.most: 'x' is not an integer"),
        ({"counter": {"most": 0}}, r"observers\.extra\.counter\.most: 0 is not a positive number"),
        (["counter"], r"observers\.extra: \['counter'\] is not a section"),
        (None, r"observers\.extra: null is not a section"),
        (5, r"observers\.extra: 5 is not a section"),
    ],
)
def test_mistakes_name_the_whole_key(folder: Path, given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        built(given)


def test_a_key_that_says_nothing_is_neither_on_nor_off(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(tiny()) + "observers:\n  extra:\n    counter:\n")
    with pytest.raises(ConfigError, match=r"^observers\.extra\.counter: says nothing; {} or true turns it on"):
        load_config("c.yaml", plugins=["counters.py"])
