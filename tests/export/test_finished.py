"""Which run folders have a model to export, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.errors import UserError
from halos.export.finished import load


def folder_of(folder: Path, finished: Any = True) -> Path:
    (folder / "config.yaml").write_text("name: run\n")
    (folder / "summary.json").write_text(json.dumps({"finished": finished}))
    torch.save({"theta": torch.arange(6.0).view(2, 3).T}, folder / "model.pt")
    return folder


def test_a_finished_run_has_its_model_in_memory_of_its_own(tmp_path: Path) -> None:
    found = load(folder_of(tmp_path))
    assert found.tensors["theta"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert found.tensors["theta"].is_contiguous()
    assert found.summary == {"finished": True}


def test_two_names_of_one_tensor_are_two_tensors(tmp_path: Path) -> None:
    tied = torch.zeros(3)
    torch.save({"a": tied, "b": tied}, folder_of(tmp_path) / "model.pt")
    found = load(tmp_path).tensors
    assert found["a"].data_ptr() != found["b"].data_ptr()


def lacking(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def ended(finished: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "summary.json").write_text(json.dumps({"finished": finished}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacking("config.yaml"), "is no run folder: there is no config.yaml in it"),
        (lacking("summary.json"), "is not finished: there is no summary.json; if it was killed: python -m halos.run"),
        (lacking("model.pt"), "has no model.pt: nothing was trained (executor timing), or it was deleted"),
        (ended("interrupted"), "has no final model: the run did not finish ('interrupted')"),
        (ended("diverged: training loss became nan"), "did not finish ('diverged: training loss became nan')"),
        (lambda folder: (folder / "summary.json").write_text("[]"), "summary.json cannot be read: TypeError"),
        (lambda folder: (folder / "summary.json").write_text("{"), "summary.json cannot be read: JSONDecodeError"),
        (lambda folder: (folder / "model.pt").write_text("text"), "model.pt cannot be read: "),
    ],
    ids=["no run", "not finished", "no model", "interrupted", "diverged", "a list", "no JSON", "no tensors"],
)
def test_a_run_without_a_final_model_is_named(change: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    change(folder_of(tmp_path))
    with pytest.raises(UserError) as raised:
        load(tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
