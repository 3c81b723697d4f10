"""Configurations of earlier versions: `earlier.yaml` is one as it was resolved before there were aggregators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import halos
from halos.compare import timelines
from halos.config.config import load_config
from halos.config.earlier import up_to_date
from halos.config.sections import to_sections
from halos.errors import ConfigError
from halos.export.__main__ import main as export
from halos.run.lifecycle import run

EARLIER = Path(__file__).with_name("earlier.yaml")


def earlier() -> dict[str, Any]:
    section: dict[str, Any] = yaml.safe_load(EARLIER.read_text())
    return section


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with the config.yaml that an earlier version wrote there."""
    folder = tmp_path_factory.mktemp("runs") / "earlier"
    run(*load_config(str(EARLIER), [f"out={folder}", "observers.progress=false"]))
    (folder / "config.yaml").write_text(EARLIER.read_text().replace("out: null", f"out: {folder}"))
    return folder


def test_the_file_is_one_that_is_refused_as_it_stands() -> None:
    assert earlier()["train"]["optimizer"]["momentum"] == 0.0 and "aggregate" not in earlier()


def test_it_is_what_this_version_writes_of_the_same_run() -> None:
    config, plugins = load_config(str(EARLIER))
    assert up_to_date(earlier()) == to_sections(config, plugins)


def test_of_sgd_the_keys_of_adamw_are_left_out() -> None:
    section = earlier()
    section["train"]["optimizer"] |= {"name": "sgd", "momentum": 0.5}
    assert up_to_date(section)["train"]["optimizer"] == {
        "name": "sgd", "lr": 0.001, "momentum": 0.5, "weight_decay": 0.1
    }  # fmt: skip


def test_its_run_is_read_as_one_of_today(folder: Path) -> None:
    assert halos.read(folder).config == up_to_date(earlier()) | {"out": str(folder)}


def test_its_outages_are_known(folder: Path) -> None:
    assert timelines.timeline(halos.read(folder), 1.0).faults


def test_its_model_can_be_exported(folder: Path, tmp_path: Path) -> None:
    assert export([str(folder), "--to", "hf", str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "config.json").is_file()


def test_its_folder_is_known_as_a_runs(folder: Path, command: Any) -> None:
    assert command(str(folder / "config.yaml"), "--overwrite", "observers.progress=false").code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda section: [section.pop(key) for key in ("out", "record")],
        lambda section: section.update(aggregate={"name": "mean"}),
    ],
    ids=["without what a resolved one has", "with what a later one has"],
)
def test_in_any_other_configuration_a_mistake_is_told(change: Any, tmp_path: Path) -> None:
    section = earlier()
    change(section)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(section))
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "c.yaml"))
    assert str(caught.value).startswith("train.optimizer.momentum: no such key")
