"""Evaluation sets are measured as the data are, unless they say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos.config.config import resolved
from halos.config.yaml_text import Section
from halos.data.text import Text
from halos.errors import ConfigError
from halos.testing import record, tiny

DATA = {"name": "text", "path": "stdlib", "sequence_length": 32, "validation_samples": 5, "split_seed": 3, "seed": 4}


def sections(sets: Any, data: Any = DATA) -> Section:
    return {**tiny(), "data": data, "evaluate": {"sets": sets}}


def source(own: Any, data: Any = DATA) -> Any:
    return resolved(sections({"other": own}, data))[0].evaluate.sets["other"]


def test_a_set_takes_over_how_the_data_are_measured_and_not_how_they_are_trained_on() -> None:
    data = {**DATA, "shards": "by_region", "wrap": False, "pattern": "*.py", "shuffle": False}
    found = source({"name": "text", "path": "."}, data)
    assert isinstance(found, Text)
    assert (found.sequence_length, found.validation_samples, found.shuffle) == (32, 5, False)
    assert (found.seed, found.split_seed) == (4, 3)
    assert (found.shards, found.wrap, found.pattern) == ("shared", True, None)
    assert found.hold_out is False  # nobody trains on it


def test_what_a_set_says_itself_counts() -> None:
    found = source({"name": "text", "sequence_length": 16, "validation_samples": 9, "split_seed": None})
    assert (found.sequence_length, found.validation_samples, found.split_seed) == (16, 9, None)


def test_what_the_data_have_by_default_is_taken_over_too_whatever_the_source() -> None:
    plain = {"name": "synthetic", "samples": 600}
    assert source(plain, {"name": "synthetic"}).sequence_length == 256
    assert source("text", {"name": "synthetic", "sequence_length": 24}).sequence_length == 24
    # With 64 validation samples, 64 are enough for a set; with the default of 512 they would not be.
    assert source({"name": "synthetic", "samples": 64}, {**DATA, "validation_samples": 64}).validation_samples == 64


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"other": {"name": "nothing"}}, r"evaluate\.sets\.other\.name: 'nothing' is not installed"),
        ({"other": {"path": "."}}, r"evaluate\.sets\.other\.name: missing"),
        ({"other": 5}, r"evaluate\.sets\.other: 5 is not a data source"),
        ([], r"evaluate\.sets: \[\] is not a section"),
        (
            {"other": {"name": "text", "validation_samples": 0}},
            r"evaluate\.sets\.other\.validation_samples: 0 is not a",
        ),
    ],
)
def test_what_is_no_set_is_refused_as_ever(sets: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        resolved(sections(sets))


def test_a_set_without_samples_to_evaluate_is_refused_though_the_data_have_none() -> None:
    with pytest.raises(ConfigError, match=r"^evaluate\.sets\.other\.validation_samples: 0 is not a positive number"):
        source("text", {**DATA, "validation_samples": 0})


def evaluated(tmp_path: Path, data: Section, other: Section) -> list[tuple[str, float]]:
    """A run with a set; how its losses are called, with its loss."""
    np.save(tmp_path / "data.npy", np.arange(200, dtype=np.uint16) % 100)
    np.save(tmp_path / "bytes.npy", np.arange(200, dtype=np.uint16) % 50)
    (tmp_path / "a.txt").write_text("x" * 200)
    general = {"sequence_length": 8, "validation_samples": 4}
    run = record({**tiny(), "data": {**general, **data}, "evaluate": {"sets": {"other": other}}})
    return [(each.set, each.loss) for each in run.evaluations]


@pytest.mark.parametrize(
    ("data", "other", "said"),
    [
        # Bytes are 256; these tokens are said to be 100, or nobody says how they were made.
        ("a.txt", {"vocab_size": 100}, r"its tokens are other ones than the data's: there are 100, of the data's 256$"),
        ("a.txt", {}, r"it cannot be known .* \(their tokenizer is bytes\); if they are, say so by vocab_size: 256$"),
        ({}, "a.txt", r"has 256 different tokens, the data only 100$"),
        ({"vocab_size": 300}, "a.txt", r"its tokens are other ones than the data's: there are 256, of the data's 300$"),
        ({"vocab_size": 99, "path": "bytes.npy"}, {}, r"has 100 different tokens, the data only 99$"),
        ({"vocab_size": 100}, {"vocab_size": 99}, r"its tokens are other ones than the data's: there are 99, of the"),
    ],
)
def test_a_set_of_other_tokens_is_refused(tmp_path: Path, data: Any, other: Any, said: str) -> None:
    def section(given: Any) -> Section:
        if isinstance(given, str):
            return {"name": "text", "path": str(tmp_path / given)}
        return {"name": "tokens", **given, "path": str(tmp_path / given.get("path", "data.npy"))}

    with pytest.raises(ConfigError, match=rf"^evaluate\.sets\.other: {said}"):
        evaluated(tmp_path, section(data), section(other))


def test_a_set_of_the_same_tokens_as_far_as_anybody_knows_is_evaluated(tmp_path: Path) -> None:
    tokens = {"name": "tokens", "path": str(tmp_path / "data.npy")}
    fewer = {"name": "tokens", "path": str(tmp_path / "bytes.npy")}  # 50 different ones, of 100
    text = {"name": "text", "path": str(tmp_path / "a.txt")}
    for data, other in ((tokens, fewer), (text, {**fewer, "vocab_size": 256}), (text, text)):
        assert [name for name, _ in evaluated(tmp_path, data, other)] == ["validation", "other"] * 2
