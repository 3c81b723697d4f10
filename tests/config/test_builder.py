"""Sections become dataclasses by their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest

from halos.config.builder import Builder, path_fields
from halos.config.layers import merge
from halos.config.written import Layer, Written, at, inside, written
from halos.config.yaml_text import parse
from halos.errors import ConfigError, require
from halos.plugins.registry import Plugins
from halos.rules.merge import SGD, Adam, MergeRule, Nesterov


@dataclass
class Inner:
    lr: float = 1.0

    def __post_init__(self) -> None:
        require(self.lr >= 0, "lr", self.lr, "non-negative")


@dataclass
class Named:
    name: str = "one"
    size: int = 1


@dataclass
class Everything:
    number: float = 0.5
    count: int = 1
    flag: bool = False
    text: str = ""
    either: Union[str, int] = ""
    maybe: Optional[int] = None
    one_or_many: Union[float, list[float]] = 1.0
    pair: tuple[float, int] = (0.0, 0)
    row: tuple[int, ...] = ()
    numbers: Sequence[float] = ()
    choice: Literal["a", "b"] = "a"
    path: Optional[Path] = None
    places: Union[Literal["home"], Path, list[Path]] = "home"
    table: Union[float, list[list[float]], None] = None
    anything: Any = None
    bare: dict = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    named: Named = field(default_factory=Named)
    rule: MergeRule = field(default_factory=lambda: Nesterov(lr=0.5, momentum=0.25))
    rules: list[MergeRule] = field(default_factory=list)
    by_name: dict[str, MergeRule] = field(default_factory=dict)
    perhaps: Optional[MergeRule] = None
    hidden: int = field(default=3, init=False)


@dataclass
class Needs:
    lr: float


@dataclass
class Outer:
    needs: Needs
    rule: MergeRule


@dataclass
class Odd:
    values: Optional[set[int]] = None


@dataclass
class Unread:
    values: Nowhere = None  # noqa: F821


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins()


@pytest.fixture
def build(plugins):
    return lambda **section: Builder(plugins).build(Everything, section, "top")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"number": 2}, 2.0),
        ({"number": float("inf")}, float("inf")),
        ({"count": 1e6}, 1_000_000),
        ({"flag": True}, True),
        ({"text": 7}, "7"),
        ({"either": 7}, 7),
        ({"maybe": None}, None),
        ({"one_or_many": 2}, 2.0),
        ({"one_or_many": [1, 2.5]}, [1.0, 2.5]),
        ({"pair": [1, 2]}, (1.0, 2)),
        ({"row": [1, 2, 3]}, (1, 2, 3)),
        ({"numbers": [1]}, [1.0]),
        ({"choice": "b"}, "b"),
        ({"path": "a/b"}, Path("a/b").absolute()),
        ({"path": "/a/b"}, Path("/a/b")),
        ({"places": "home"}, "home"),
        ({"places": ["/a", "/b"]}, [Path("/a"), Path("/b")]),
        ({"table": 1}, 1.0),
        ({"table": [[1, 2], [3, 4.5]]}, [[1.0, 2.0], [3.0, 4.5]]),
        ({"anything": {"x": [1]}}, {"x": [1]}),
        ({"bare": {"x": 1}}, {"x": 1}),
        ({"inner": {"lr": 2}}, Inner(2.0)),
        ({"inner": None}, Inner()),
        ({"named": "two"}, Named("two")),
        ({"rule": "sgd"}, SGD()),
        ({"rule": {"name": "adam", "lr": 1}}, Adam(lr=1.0)),
        ({"rules": ["sgd", {"name": "sgd", "lr": 2}]}, [SGD(), SGD(lr=2.0)]),
        ({"by_name": {"a": {"name": "sgd", "lr": 3}}}, {"a": SGD(lr=3.0)}),
        ({"perhaps": "sgd"}, SGD()),
        ({"perhaps": None}, None),
    ],
    ids=str,
)
def test_a_value_becomes_what_its_field_is_annotated_with(build, section, expected):
    (name,) = section
    value = getattr(build(**section), name)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"number": True}, "top.number: true is not a number"),
        ({"number": 10**400}, f"top.number: 1{59 * '0'}… (401 characters) is too large for a number"),
        ({"count": 1.5}, "top.count: 1.5 is not an integer"),
        ({"count": float("nan")}, "top.count: nan is not an integer"),
        ({"count": 2**63}, "top.count: 9223372036854775808 is too large; an integer is below 2^63"),
        ({"flag": 1}, "top.flag: 1 is not true or false"),
        ({"text": True}, "top.text: true is not a text"),
        ({"either": []}, "top.either: [] is not a text or an integer"),
        ({"maybe": "x"}, "top.maybe: 'x' is not an integer or null"),
        ({"one_or_many": "x"}, "top.one_or_many: 'x' is not a number or a list, each a number"),
        ({"one_or_many": [1, "x"]}, "top.one_or_many[1]: 'x' is not a number"),
        ({"pair": [1]}, "top.pair: [1] is not a list of 2: a number, an integer"),
        ({"row": 1}, "top.row: 1 is not a list, each an integer"),
        ({"row": ["x"]}, "top.row[0]: 'x' is not an integer"),
        ({"choice": "c"}, "top.choice: 'c' is not one of a, b"),
        ({"path": 3}, "top.path: 3 is not a path or null"),
        ({"path": ""}, "top.path: '' is not a path or null"),
        ({"table": "x"}, "top.table: 'x' is not a number or a list of lists, each a number or null"),
        ({"table": [[1, 2], [3, "x"]]}, "top.table[1][1]: 'x' is not a number"),
        ({"table": [1, 2]}, "top.table[0]: 1 is not a list, each a number"),
        ({"places": ["x", 3]}, "top.places[1]: 3 is not a path"),
        ({"places": 3}, "top.places: 3 is not 'home' or a path or a list, each a path"),
        ({"bare": []}, "top.bare: [] is not a section of keys and values"),
        ({"inner": 3}, "top.inner: 3 is not a section of keys and values"),
        ({"inner": {"lr": -1}}, "top.inner.lr: -1.0 is not non-negative"),
        ({"inner": {"rl": 1}}, "top.inner.rl: no such key (did you mean 'lr'?); there are: lr"),
        ({"inner": "x"}, "top.inner: 'x' is not a section of keys and values"),
        ({"hidden": 1}, "top.hidden: no such key (did you mean 'choice'?); there are: "),
        ({"rules": [{"name": "sgd", "lr": -1}]}, "top.rules[0].lr: -1.0 is not zero or a positive, finite number"),
        ({"by_name": {"a": {"name": "sgd", "lr": -1}}}, "top.by_name.a.lr: -1.0 is not zero or a positive, finite nu"),
        ({"rules": [{"lr": 1}]}, "top.rules[0].name: missing; it must be a merge rule: {name: …}, one of "),
        ({"perhaps": {"lr": 1}}, "top.perhaps.name: missing; it must be a merge rule: {name: …}, one of "),
        ({"perhaps": 3}, "top.perhaps: 3 is not a merge rule: {name: …}, one of "),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_value_that_does_not_fit_is_named_with_its_full_key(build, section, message):
    with pytest.raises(ConfigError) as caught:
        build(**section)
    assert str(caught.value).startswith(message)


def test_a_section_without_a_name_changes_the_default_component(build):
    assert build(rule={"lr": 0.125}).rule == Nesterov(lr=0.125, momentum=0.25)
    assert build(rule={"name": "nesterov", "lr": 0.125}).rule == Nesterov(lr=0.125)  # named: from its own defaults


def test_a_required_section_is_built_from_nothing_so_that_it_says_itself_what_it_needs(plugins):
    with pytest.raises(ConfigError, match=r"^rule: missing; it must be a merge rule: {name: …}, one of .*sgd"):
        Builder(plugins).build(Outer, {"needs": {"lr": 1}}, "")
    with pytest.raises(ConfigError, match=r"^needs\.lr: missing; it must be a number$"):
        Builder(plugins).build(Outer, {}, "")


@pytest.mark.parametrize(
    ("error", "message"), [(TypeError("odd"), "top: odd"), (ZeroDivisionError("by zero"), "top: by zero")]
)
def test_whatever_a_component_finds_wrong_with_its_values_is_the_sections_mistake(plugins, error, message):
    @dataclass
    class Picky:
        def __post_init__(self) -> None:
            raise error

    with pytest.raises(ConfigError, match=f"^{message}$"):
        Builder(plugins).build(Picky, {}, "top")


def test_an_annotation_that_no_config_can_fill_is_said_so(plugins):
    with pytest.raises(
        ConfigError, match=r"^top\.values: \[1\] is not a set\[int\], which no value in a config ever is or null$"
    ):
        Builder(plugins).build(Odd, {"values": [1]}, "top")
    with pytest.raises(ConfigError, match=r"^top: the annotations of .*\.Unread cannot be read: .*Nowhere"):
        Builder(plugins).build(Unread, {"values": [1]}, "top")


def test_texts_of_a_file_leave_as_texts_that_are_nothing_else(build):
    section = {"text": "a", "either": "b", "choice": "a", "anything": {"x": ["c"]}, "bare": {"y": "d"}, "path": "e"}
    built = build(**written(section, Path("/folder")))
    texts = [built.text, built.either, built.choice, *built.anything["x"], built.bare["y"], str(built.path)]
    assert not [each for each in texts if isinstance(each, Written)]
    assert texts == ["a", "b", "a", "c", "d", str(Path("e").absolute())]


def test_a_relative_path_is_beside_its_file_if_there_is_one_and_otherwise_in_the_working_directory(
    build, tmp_path, monkeypatch
):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a").write_text("")
    monkeypatch.chdir(tmp_path)
    in_file = written({"places": ["a", "b"]}, tmp_path / "conf")
    assert build(**in_file).places == [tmp_path / "conf/a", tmp_path / "b"]
    assert build(places=["a"]).places == [tmp_path / "a"]  # not from a file


def test_the_fields_that_hold_paths_are_those_annotated_so():
    assert path_fields(Everything) == ["path", "places"]


def test_a_text_is_what_is_written_where_a_text_is_meant_and_a_value_elsewhere(build):
    section = parse(
        "{text: 007, either: 010, choice: a, path: 1.10, places: [0x10, home], anything: 007, maybe: ~, number: 1_0,"
        " by_name: {1.10: sgd}, flag: yes, bare: {x: 1e3}}"
    )
    built = build(**dict(inside(section)))
    assert (built.text, built.either, built.path, built.places) == (
        "007", 8, Path("1.10").absolute(), [Path("0x10").absolute(), Path("home").absolute()],
    )  # fmt: skip
    assert (built.anything, built.maybe, built.number, built.flag, built.bare) == (7, None, 10.0, True, {"x": 1000.0})
    assert list(built.by_name) == ["1.10"]


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "1.10", "1.10"), (str, "no", "no"), (str, "~", "~"), (str, "null", "null"),
        (str, "2024-01-01", "2024-01-01"),
        (Optional[str], "0123", "0123"), (Optional[str], "null", None), (Union[str, int], "0x1F", 31),
        (Union[str, float], "1", 1.0), (Union[int, str], "1.10", "1.10"), (Literal["on", "off"], "on", "on"),
        (Literal[1, "1"], "1", 1), (list[str], "[007, on]", ["007", "on"]), (tuple[str, int], "[07, 07]", ("07", 7)),
        (dict[str, str], "{1.10: 1.10, no: no}", {"1.10": "1.10", "no": "no"}), (bool, "off", False), (Any, "010", 8),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_meant_the_annotation_says(plugins, hint, text, value):
    converted = Builder(plugins).convert(hint, at(parse(f"key: {text}"), "key"), "key")
    assert converted == value and type(converted) is type(value)


def test_a_component_may_be_called_as_a_number_is(plugins, monkeypatch):
    monkeypatch.setitem(plugins.components["merge rule"], "007", plugins.components["merge rule"]["sgd"])
    for text in ("007", "{name: 007, lr: 2}"):
        assert isinstance(Builder(plugins).convert(MergeRule, at(parse(f"rule: {text}"), "rule"), "rule"), SGD)


@pytest.mark.parametrize(
    ("below", "above", "made", "dropped"),
    [
        ("{name: nesterov, lr: 3, momentum: 0.5}", "{name: sgd}", SGD(lr=3.0),
         ["top.rule: dropped momentum, written of nesterov: sgd has no such key"]),
        ("{name: nesterov, lr: 3}", "{name: sgd, lr: 2}", SGD(lr=2.0), []),
        ("{name: adam, lr: x}", "sgd", SGD(), ["top.rule: dropped lr, written of adam: 'x' is not a number"]),
        ("{name: adam, lr: -1}", "sgd", SGD(),
         ["top.rule: dropped lr, written of adam: -1.0 is not zero or a positive, finite number"]),
        ("{lr: 2, momentum: 0.5}", "{name: sgd}", SGD(lr=2.0),  # of the default of this field
         ["top.rule: dropped momentum, written of another component: sgd has no such key"]),
        ("{name: nesterov, lr: 2}", "{momentum: 0.5}", Nesterov(lr=2.0, momentum=0.5), []),
    ],
)  # fmt: skip
def test_of_another_component_what_fits_is_kept_and_the_rest_is_told(plugins, below, above, made, dropped):
    builder = Builder(plugins)
    layers = [Layer([("rule", at(parse(f"rule: {text}"), "rule"))]) for text in (below, above)]
    assert builder.build(Everything, merge(*layers), "top").rule == made
    assert builder.dropped == dropped


def test_what_is_written_of_the_component_itself_is_refused_as_ever(plugins):
    layers = parse("rule: {name: nesterov, lr: 1}"), parse("rule: {name: sgd, momentum: 0.5}")
    with pytest.raises(ConfigError, match=r"^rule\.momentum: no such key; there are: lr$"):
        Builder(plugins).build(Everything, merge(*layers), "")


def test_a_text_or_path_that_no_file_could_hold_is_refused_by_its_key(build):
    for section in ({"text": "a\udcff"}, {"path": "\udcff/a"}, {"places": ["home", "\udcff"]}):
        with pytest.raises(
            ConfigError, match=r"^top\.(text|path|places(\[1\])?): '.*\\udcff.*' is no UTF-8, and config\.yaml"
        ):
            build(**section)
