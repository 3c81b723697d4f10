"""A finished run, read from its folder: what became of it, and the model that it has trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from halos.errors import UserError, shown
from halos.models import weights


@dataclass(frozen=True)
class Finished:
    """A run that has ended as it should, and left a model."""

    folder: Path
    summary: dict[str, Any]  # `summary.json`
    tensors: dict[str, torch.Tensor]  # `model.pt`, on the CPU: contiguous, no two in the same memory


def load(folder: Path) -> Finished:
    """Return the finished run in `folder`. UserError says why it is none: no run, under way, or failed."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run folder: there is no config.yaml in it")
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        finished = summary["finished"]
    except FileNotFoundError:
        go_on = f"if it was killed: python -m halos.run --resume {folder}"
        raise UserError(f"{folder} is not finished: there is no summary.json; {go_on}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / 'summary.json'} cannot be read: {type(error).__name__}: {error}") from None
    if finished is not True:
        raise UserError(f"{folder} has no final model: the run did not finish ({shown(finished)})")
    if not (folder / "model.pt").exists():
        raise UserError(f"{folder} has no model.pt: nothing was trained (executor timing), or it was deleted")
    tensors = weights.load_tensors(folder / "model.pt")
    return Finished(folder, summary, {name: tensor.contiguous().clone() for name, tensor in tensors.items()})
