"""What --explain knows: sections, components and keys, from the classes' own source."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.topics import Key, Topics
from halos.errors import ConfigError
from halos.plugins.registry import Plugins
from halos.training.optimizers import AdamW

PLUGIN = '''
from dataclasses import dataclass, field
from typing import Optional

from halos import hookimpl


@dataclass
class Pace:
    """How fast."""

    hertz: float = 2.0  # steps a second
    # counted from the start,
    # not from the last stop
    after: Optional[int] = None
    said: str = "a # in a text"
    seconds: list[float] = field(
        default_factory=lambda: [1.0],  # each of them
    )


@dataclass
class Mine(Pace):
    hertz: float = 3.0
    pace: Pace = field(default_factory=Pace)  # of the others

    async def run(self, sim):
        pass


@hookimpl
def register_sync_policies(register):
    register("mine", Mine)
'''


@pytest.fixture
def topics(tmp_path: Path) -> Topics:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return Topics(Plugins([str(tmp_path / "mine.py")]))


def key(topics: Topics, path: str, name: str) -> Key:
    (found,) = [each for each in topics.find(path).keys if each.name == name]
    return found


def test_a_meaning_is_the_comment_beside_a_field_or_above_it(topics: Topics) -> None:
    said = {each.name: each.meaning for each in topics.find("policy.mine.pace").keys}
    assert said == {
        "hertz": "steps a second",
        "after": "counted from the start, not from the last stop",
        "said": "",
        "seconds": "each of them",
    }


def test_fields_of_bases_come_after_ones_own_and_mean_what_they_did(topics: Topics) -> None:
    keys = topics.find("policy.mine").keys
    assert [each.name for each in keys] == ["hertz", "pace", "after", "said", "seconds"]
    assert (keys[0].default, keys[0].meaning) == ("3.0", "steps a second")


def test_a_class_without_a_docstring_is_explained_without_one(topics: Topics) -> None:
    assert topics.find("policy.mine").text == "How fast."  # its base's
    assert topics.find("policy.mine").note.endswith("mine.py")


def test_types_are_in_words_and_defaults_in_yaml(topics: Topics) -> None:
    assert key(topics, "train.optimizer.adamw", "betas").type == "a list of 2, each a number"
    assert key(topics, "faults.crashes.at", "seconds").default == ".inf"
    assert key(topics, "faults.crashes.at", "worker").default == "required"
    assert key(topics, "policy.diloco", "outer").type == "a merge rule"
    assert key(topics, "policy.diloco", "outer").default == "{name: nesterov, lr: 0.7, momentum: 0.9}"
    assert key(topics, "train", "schedule").default == "that of its keys"
    assert key(topics, "train", "optimizer").default.startswith("{name: adamw, lr: 0.001, betas:")


def test_a_section_that_is_chosen_by_name_lists_what_there_is(topics: Topics) -> None:
    policies = topics.find("policy")
    assert policies.note == "required"
    assert [each.name for each in policies.components] == ["async_local_sgd", "diloco", "halos", "mine"]
    assert topics.find("network").note == "default: matrix"
    optimizers = topics.find("train.optimizer")
    assert optimizers.text.startswith("Inner optimizers") and optimizers.note.startswith("an inner optimizer; default:")
    assert [each.name for each in optimizers.components] == ["adamw", "sgd"]


@pytest.mark.parametrize("path", ["merge_rule.nesterov", "policy.diloco.outer.nesterov"])
def test_merge_rules_are_a_kind_of_their_own_or_found_where_they_are_set(path: str, topics: Topics) -> None:
    assert [each.name for each in topics.find(path).keys] == ["lr", "momentum"]


def test_a_key_alone_has_its_type_its_default_and_what_it_means(topics: Topics) -> None:
    found = topics.find("policy.mine.pace.hertz")
    assert (found.note, found.text) == ("a number; default: 2.0", "steps a second")


def test_everything_is_each_section_component_and_section_inside_once(topics: Topics) -> None:
    paths = [each.path for each in topics.everything()]
    assert len(paths) == len(set(paths))
    assert {
        "train",
        "train.schedule",
        "train.optimizer.sgd",
        "cluster.regions",
        "policy.mine.pace",
        "merge_rule.sgd",
        "seed",
    } <= set(paths)
    assert "policy.mine" not in [each.path for each in topics.everything("halos")]


def test_every_key_of_halos_says_what_it_means() -> None:
    silent = [
        f"{topic.path}.{each.name}"
        for topic in Topics(Plugins()).everything("halos")
        for each in topic.keys
        if not each.meaning
    ]
    assert silent == []
    assert all(each.text for each in Topics(Plugins()).everything("halos"))


def test_annotations_that_cannot_be_read_are_a_mistake(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AdamW.__annotations__, "lr", "nowhere")
    with pytest.raises(ConfigError, match="AdamW cannot be read: name 'nowhere' is not defined"):
        topics.find("train.optimizer.adamw")
