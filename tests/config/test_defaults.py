"""Sections with their defaults written out: only what is left out is added, and only where it is known what is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional, Union

import pytest

from halos.config.defaults import Defaults
from halos.config.written import Layer, Spelled, at, others
from halos.plugins.registry import Plugins
from halos.rules.merge import MergeRule, Nesterov


@dataclass
class Part:
    size: int = 3
    text: str = "${as it is}"


@dataclass
class Whole:
    needed: int
    part: Part
    rule: MergeRule = field(default_factory=lambda: Nesterov(lr=0.5, momentum=0.25))
    perhaps: Optional[MergeRule] = None
    parts: list[Part] = field(default_factory=list)
    by_name: dict[str, Part] = field(default_factory=dict)
    either: Union[float, Part] = 1.0


@pytest.fixture(scope="module")
def under() -> Any:
    defaults = Defaults(Plugins())
    return lambda **section: defaults.under(Whole, section)


PART = {"size": 3, "text": "\\${as it is}"}  # a default's `${` is a text, and no reference


def test_what_is_left_out_is_added_at_any_depth(under: Any) -> None:
    assert under() == {
        "part": PART,
        "rule": {"name": "nesterov", "lr": 0.5, "momentum": 0.25},
        "perhaps": None,
        "parts": [],
        "by_name": {},
        "either": 1.0,
    }
    filled = under(needed=1, parts=[{"size": 5}], by_name={"x": {}}, either={"text": "y"}, perhaps="sgd")
    assert filled["parts"] == [{**PART, "size": 5}] and filled["by_name"] == {"x": PART}
    assert filled["either"] == {"size": 3, "text": "y"}
    assert filled["perhaps"]["name"] == "sgd" and "lr" in filled["perhaps"]


def test_a_component_without_a_name_is_the_default_and_one_that_is_named_has_its_own_defaults(under: Any) -> None:
    assert under(rule={"lr": 2})["rule"] == {"name": "nesterov", "lr": 2, "momentum": 0.25}
    assert under(rule="nesterov")["rule"]["momentum"] == Nesterov().momentum


def test_what_is_no_section_or_no_component_is_left_for_the_builder_to_refuse(under: Any) -> None:
    wrong = {"part": 3, "rule": {"name": "nothing", "lr": 1}, "perhaps": {"lr": 1}, "parts": {"0": 1}, "strange": [1]}
    filled = under(**wrong)
    assert {key: filled[key] for key in wrong} == wrong


def test_how_values_were_spelled_and_of_whom_they_were_written_is_kept() -> None:
    filled = Defaults(Plugins()).under(Part, Layer([("size", Spelled(7, "007"))], {"size": "other"}))
    assert at(filled, "size") == Spelled(7, "007") and others(filled) == {"size": "other"}
