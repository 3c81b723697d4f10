"""What a finished run's model can be written as: a file of tensors, or a folder that `transformers` loads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halos.config.config import Config
from halos.errors import ConfigError, UserError, in_a_line
from halos.export.finished import Finished
from halos.plugins.optional import call, has

MODEL = "model.safetensors"


def safetensors(finished: Finished, file: Path) -> None:
    """Write the model's tensors, as they are called in `model.pt`. Raises UserError if `file` is there or cannot be."""
    if file.exists():
        raise UserError(f"{file} exists already; choose another name, or delete it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    _write(finished.tensors, file)


def hf(finished: Finished, config: Config, name: str, folder: Path) -> None:
    """Write a folder for `transformers`: `config.json`, `model.safetensors`, the data's tokenizer if known, a README.

    `config` is the run's; `name` that of its model, for messages. Raises ConfigError if the model does not say what it
    is there, UserError if `folder` holds anything or cannot be written.
    """
    if not has(config.model, "hugging_face"):
        raise ConfigError(
            "model.name", f"{name!r} does not say what it is in transformers; --to safetensors FILE works"
        )
    _save_file()  # before anything is written
    length = config.data.sequence_length
    described, tensors = call(config.model, "hugging_face", finished.tensors, length)
    tokenizer = call(config.data, "tokenizer_json")
    texts = {"config.json": json.dumps(described, indent=2) + "\n", "README.md": _readme(finished, length, tokenizer)}
    if tokenizer is not None:
        known = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        texts |= {"tokenizer.json": tokenizer, "tokenizer_config.json": json.dumps(known) + "\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} exists already and is not empty; choose another name, or delete it")
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    _write(tensors, folder / MODEL)


def _write(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write `file`, whole or not at all."""
    save_file = _save_file()
    part = file.with_name(file.name + ".part")
    try:
        save_file(tensors, part, metadata={"format": "pt"})  # transformers wants to be told whose tensors these are
        os.replace(part, file)
    except Exception as error:  # the library has its own for a full disk
        part.unlink(missing_ok=True)
        raise UserError(f"{file} cannot be written: {in_a_line(error)}") from None


def _save_file() -> Callable[..., None]:
    """Return the library's function. Raises UserError if there is no such library."""
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UserError("--to: safetensors is not installed; run: pip install halos-simulator[hf]") from None
    return save_file


def _readme(finished: Finished, length: int, tokenizer: Any) -> str:
    summary = finished.summary
    loss = summary.get("final_validation_loss")
    reached = "" if loss is None else f", to a validation loss of {loss:.4f} nats per token"
    with_it = (
        "with the tokenizer in this folder" if tokenizer is not None else "given as numbers: no tokenizer is known"
    )
    return (
        f"# {summary.get('name')}\n\n"
        f"Trained by halos {summary.get('versions', {}).get('halos', '')} with {summary.get('policy')}, for"
        f" {summary.get('local_steps', 0):,} committed local steps on samples of {length:,} tokens{reached}.\n\n"
        f"Its tokens are those of the run's data, {with_it}.\n"
    )
