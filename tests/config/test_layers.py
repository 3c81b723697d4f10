"""Layers: defaults ← extends ← file ← key=value, and what is left of a component that another takes the place of."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.config import load_config
from halos.config.layers import merge, overrides, parse_override, read
from halos.config.written import Layer
from halos.config.yaml_text import parse
from halos.errors import UserError


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_the_upper_layer_wins_and_what_it_leaves_out_stays():
    below = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merge(below, {"b": {"c": 4}, "e": 5}) == {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}
    assert below == {"a": 1, "b": {"c": 2, "d": 3}}


def test_a_changed_name_discards_what_lies_below_it_if_that_was_not_written():
    below = {"policy": {"name": "halos", "local_updates": 4, "outer": {"name": "sgd", "lr": 1}}}
    assert merge(below, {"policy": {"name": "diloco"}}) == {"policy": {"name": "diloco"}}
    assert merge(below, {"policy": {"outer": {"name": "adam"}}})["policy"] == {
        "name": "halos",
        "local_updates": 4,
        "outer": {"name": "adam"},
    }


def written(text: str) -> Layer:
    layer = parse(text)
    assert isinstance(layer, Layer)
    return layer


HALOS = "policy: {name: halos, local_updates: 4, outer: {name: nesterov, lr: 1, momentum: 0.5}}"


def test_what_was_written_of_another_component_is_remembered_to_be_of_that():
    merged = merge(written(HALOS), written("policy: {name: diloco, outer: {lr: 2}}"))["policy"]
    assert merged == {"name": "diloco", "local_updates": 4, "outer": {"name": "nesterov", "lr": 2, "momentum": 0.5}}
    assert merged.others == {"local_updates": "halos"}  # `outer` is written of diloco as well
    assert merged["outer"].others == {"momentum": "nesterov"}
    inside = merge(written(HALOS), written("policy: {outer: sgd}"))["policy"]
    assert (inside.others, inside["outer"].others) == ({}, {"lr": "nesterov", "momentum": "nesterov"})


def test_it_is_remembered_through_further_layers_until_it_is_written_again():
    once = merge(written(HALOS), written("policy: diloco"))
    assert merge(once, written("policy: {local_updates: 3}"))["policy"].others == {"outer": "halos"}
    twice = merge(once, written("policy: {name: other, outer: {name: adam}}"))["policy"]
    assert twice.others == {"local_updates": "halos"}
    assert merge({}, once)["policy"].others == {"local_updates": "halos", "outer": "halos"}


def test_in_one_layer_what_has_no_name_is_of_the_component_that_is_named():
    for order in (["network.latency_ms=3", "network.name=hub"], ["network.name=hub", "network.latency_ms=3"]):
        assert overrides(order)["network"].others == {}
    again = overrides(["policy={name: halos, local_updates: 2}", "policy.name=diloco"])
    assert again["policy"].others == {"local_updates": "halos"}
    over = merge(written("network: {latency_ms: 3}"), overrides(["network.name=hub"]))
    assert over["network"].others == {"latency_ms": "matrix"}  # what a section without a name is


def test_values_are_spelled_as_in_the_layer_they_come_from():
    merged = merge(written("name: 007\nseed: 010\ntrain: {clip: 1.50}"), overrides(["seed=0x10"]))
    assert merged == {"name": 7, "seed": 16, "train": {"clip": 1.5}}
    assert merged.spelled == {"name": "007", "seed": "0x10"} and merged["train"].spelled == {"clip": "1.50"}


def test_the_same_name_or_none_discards_nothing():
    below = {"policy": {"name": "halos", "local_updates": 4}}
    for above in ({"name": "halos", "merge_weight": 0.5}, {"merge_weight": 0.5}):
        assert merge(below, {"policy": above})["policy"] == {"name": "halos", "local_updates": 4, "merge_weight": 0.5}
    assert merge({"policy": {"a": 1}}, {"policy": {"name": "x"}})["policy"] == {"a": 1, "name": "x"}


def test_the_runs_own_name_discards_nothing():
    assert merge({"name": "a", "seed": 1}, {"name": "b"}) == {"name": "b", "seed": 1}


def test_lists_are_replaced():
    assert merge({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_a_text_is_short_for_a_name_in_either_layer():
    assert merge({"codec": {"name": "fp32"}}, {"codec": "fp16"}) == {"codec": {"name": "fp16"}}
    assert merge({"outer": "adam"}, {"outer": {"lr": 1}}) == {"outer": {"name": "adam", "lr": 1}}
    assert merge({"network": {"name": "matrix", "latency_ms": 5}}, {"network": "matrix"})["network"]["latency_ms"] == 5


def test_a_file_lies_over_what_it_extends(tmp_path):
    write(
        tmp_path,
        base="seed: 1\nname: base\ntrain: {clip: 2, batch_size: 4}",
        top="extends: base.yaml\ntrain: {clip: 3}",
    )
    assert read(tmp_path / "top.yaml") == {"seed": 1, "name": "base", "train": {"clip": 3, "batch_size": 4}}


def test_of_several_extended_files_the_later_lies_over_the_earlier(tmp_path):
    write(tmp_path, one="a: 1\nb: 1\nc: 1", two="b: 2\nc: 2", top="extends: [one.yaml, two.yaml]\nc: 3")
    assert read(tmp_path / "top.yaml") == {"a": 1, "b": 2, "c": 3}


def test_extended_files_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    write(tmp_path / "deep", base="extends: ../lowest.yaml\na: 1")
    write(tmp_path, lowest="b: 2", top="extends: deep/base.yaml")
    monkeypatch.chdir("/")
    assert read(tmp_path / "top.yaml") == {"a": 1, "b": 2}


def test_one_file_may_be_extended_twice_but_not_by_itself(tmp_path):
    write(
        tmp_path,
        base="a: 1",
        left="extends: base.yaml",
        right="extends: base.yaml",
        top="extends: [left.yaml, right.yaml]",
    )
    assert read(tmp_path / "top.yaml") == {"a": 1}
    write(tmp_path, base="extends: top.yaml")
    with pytest.raises(UserError, match="extends itself"):
        read(tmp_path / "top.yaml")


def test_texts_remember_the_folder_of_the_file_they_were_written_in(tmp_path, monkeypatch):
    write(tmp_path / "deep", base="model: {weights: w.pt}\ndata: {path: [a, b], key: c}\nseed: 1")
    write(tmp_path, top="extends: deep/base.yaml\ndata: {key: d}\nplugins: [mine.py]")
    monkeypatch.chdir(tmp_path)
    section = merge(read(Path("top.yaml")), overrides(["name=x"]))
    assert section["model"]["weights"].folder == section["data"]["path"][1].folder == tmp_path / "deep"
    assert section["data"]["key"].folder == section["plugins"][0].folder == tmp_path
    assert not hasattr(section["name"], "folder")


def test_a_file_may_have_a_byte_order_mark_and_any_letters(tmp_path):
    (tmp_path / "c.yaml").write_bytes("name: größer\n".encode("utf-8-sig"))
    assert read(tmp_path / "c.yaml") == {"name": "größer"}


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("seed=3", {"seed": 3}),
        ("a.b.c=1e-3", {"a": {"b": {"c": 0.001}}}),
        ("a=[1, {b: x}]", {"a": [1, {"b": "x"}]}),
        ("a=x=y", {"a": "x=y"}),
        ("a=", {"a": None}),
        ("a=null", {"a": None}),
        ("a='7'", {"a": "7"}),
        ("a=.inf", {"a": float("inf")}),
        ("a=-1", {"a": -1}),
        ("a=*.py", {"a": "*.py"}),  # an alias in YAML, of which there can be none
        ("a= %x: y", {"a": "%x: y"}),
        ("a=@[", {"a": "@["}),
        ("a=`", {"a": "`"}),
        ("a={name: x, y: 1}", {"a": {"name": "x", "y": 1}}),
    ],
)
def test_an_override_is_a_key_and_a_yaml_value(text, section):
    assert parse_override(text) == section


def test_above_a_file_that_says_null_nothing_is_kept(tmp_path):
    write(tmp_path, base="policy: {name: halos, outer: {lr: 1.6}}", top="extends: base.yaml\npolicy: null")
    assert merge(read(tmp_path / "top.yaml"), overrides(["policy=diloco"]))["policy"] == "diloco"
    kept = merge(read(tmp_path / "base.yaml"), overrides(["policy=diloco"]))["policy"]
    assert kept == {"name": "diloco", "outer": {"lr": 1.6}}


def test_overrides_are_one_layer_whatever_their_order():
    for order in (["policy.name=diloco", "policy.outer.lr=2"], ["policy.outer.lr=2", "policy.name=diloco"]):
        layer = overrides(order)
        assert layer == {"policy": {"name": "diloco", "outer": {"lr": 2}}}
        merged = merge({"policy": {"name": "halos", "outer": {"lr": 1, "beta": 0.9}}}, layer)
        assert merged == {"policy": {"name": "diloco", "outer": {"lr": 2}}}


def test_of_two_overrides_of_one_key_the_later_wins():
    assert overrides(["a=1", "a=2"]) == {"a": 2}


def test_all_four_layers_together(tmp_path):
    write(
        tmp_path,
        base="model: {name: sized, parameters: 10}\nsteps: {name: by_speed, base: 8, round: floor}\npolicy: diloco\n"
        "budget: {local_steps: 100}\ncluster: {regions: [{workers: [1]}]}\ntrain: {batch_size: 4, clip: 2.0}",
        top="extends: base.yaml\nsteps: {base: 16}\ntrain: {batch_size: 8}\ncodec: fp16",
    )
    config, _ = load_config(str(tmp_path / "top.yaml"), ["steps.name=fixed", "train.clip=3"])
    assert (config.network.return_path, config.codec.__class__.__name__) == ("own", "Fp16")  # defaults; file
    assert config.budget.local_steps == 100  # extends
    assert config.train.batch_size == 8  # file over extends
    assert config.train.clip == 3.0  # key=value over extends
    assert (type(config.steps).__name__, config.steps.base) == ("Fixed", 16)  # another name: what it has as well
    assert config.dropped == ["steps: dropped round, written of by_speed: fixed has no such key"]


def test_a_section_without_a_name_is_its_default_component_also_below_a_layer_that_names_another() -> None:
    below = {"network": {"bandwidth_gbps": 1.0}}
    assert merge(below, {"network": {"name": "hub", "uplink": 2}}) == {"network": {"name": "hub", "uplink": 2}}
    assert merge(below, {"network": {"name": "matrix", "latency_ms": 3}}) == {
        "network": {"bandwidth_gbps": 1.0, "name": "matrix", "latency_ms": 3}
    }


def test_a_tilde_and_what_looks_like_a_number_are_paths_of_extended_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home", base="a: 1")
    (tmp_path / "1.10").write_text("b: 2")
    write(tmp_path, top="extends: [~/base.yaml, 1.10]")
    assert read(tmp_path / "top.yaml") == {"a": 1, "b": 2}
