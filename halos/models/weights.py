"""Initial weights from files: Hugging Face checkpoints, state dicts, NumPy archives.

Nothing is fetched from anywhere; what the names mean is the model's business.
"""

from __future__ import annotations

import json
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halos.errors import UserError, from_here

# What a folder may hold, best first: Hugging Face's names, then a run folder's.
IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
)
SUFFIXES = (".safetensors", ".pt", ".bin", ".npz")
# Older checkpoints also hold constants that every model computes by itself.
CONSTANTS = ("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "attention.bias", "attention.masked_bias")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a checkpoint, by name, as stored (on the CPU, any precision).

    `path` is a folder (a Hugging Face checkpoint, whole or in shards; a run folder) or a
    `.safetensors`, `.pt`, `.bin` or `.npz` file. Raises UserError if it is missing or damaged.
    """
    path = Path(from_here(path))
    if stat.S_ISDIR(_mode(path)):
        inside = [path / name for name in IN_FOLDER if stat.S_ISREG(_mode(path / name))]
        if not inside:
            raise UserError(f"weights {path}: the folder holds none of {', '.join(IN_FOLDER)}")
        path = inside[0]
    tensors = _shards(path) if path.name.endswith(".index.json") else _file(path)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(CONSTANTS)}


def architecture(path: Path) -> dict[str, Any]:
    """Return a checkpoint folder's `config.json`; empty if there is none. Raises UserError if it cannot be read."""
    file = Path(from_here(path), "config.json")
    return _json(file) if stat.S_ISREG(_mode(file)) else {}


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Copy `tensors` into the parameters and buffers of those names; a tied parameter goes by any of its names.

    Raises UserError if a parameter is missing, a tensor left over, of another shape or kind, or not finite, or if two
    differ that are tied. Buffers may be missing.
    """
    source = Path(from_here(source))
    tied: dict[torch.Tensor, list[str]] = {}  # each parameter's names
    for name, each in module.named_parameters(remove_duplicate=False):
        tied.setdefault(each, []).append(name)
    for parameter, names in tied.items():
        given = [name for name in names if name in tensors]
        if not given:
            wanted = list(parameter.shape)
            raise UserError(f"weights {source}: {names[0]} is missing; the model needs it, of shape {wanted}")
        for name in given:
            _check(name, tensors[name], parameter, source)
            if name != given[0] and not torch.equal(tensors[name], tensors[given[0]]):
                raise UserError(f"weights {source}: {given[0]} and {name} differ, but the model has them tied")
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for name in buffers:
        if name in tensors:
            _check(name, tensors[name], buffers[name], source)
    known: dict[str, torch.Tensor] = {
        **buffers,
        **{name: parameter for parameter, names in tied.items() for name in names},
    }
    left_over = [name for name in tensors if name not in known]
    if left_over:
        more = f" and {len(left_over) - 1} more" if len(left_over) > 1 else ""
        raise UserError(f"weights {source}: the model has no {left_over[0]}{more}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            known[name].copy_(tensor)


def _check(name: str, found: torch.Tensor, ours: torch.Tensor, source: Path) -> None:
    """Raise UserError unless the tensor found can be copied into ours."""
    if found.layout != torch.strided or found.is_nested or found.is_meta:
        raise UserError(f"weights {source}: {name} is no plain tensor")
    if found.shape != ours.shape:
        raise UserError(f"weights {source}: {name} has shape {list(found.shape)}; the model's has {list(ours.shape)}")
    if found.is_floating_point() != ours.is_floating_point():
        wanted = "floating-point" if ours.is_floating_point() else "whole"
        raise UserError(f"weights {source}: {name} holds {found.dtype}, not {wanted} numbers")
    if not found.to(ours.dtype).isfinite().all():
        raise UserError(f"weights {source}: {name} holds numbers that are not finite in {ours.dtype}")


def _shards(index: Path) -> dict[str, torch.Tensor]:
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"weights {index} cannot be read: no weight_map of tensor names to files")
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(places.values())):
        tensors.update(_file(index.parent / name))
    return tensors


def _mode(path: Path) -> int:
    """Return the mode of the file at `path`; 0 if there is none. Raises UserError if it cannot be told."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {error.strerror}") from None


def _file(path: Path) -> dict[str, torch.Tensor]:
    if not stat.S_ISREG(_mode(path)):
        raise UserError(f"weights {path}: no such file or folder (nothing is downloaded)")
    if path.suffix not in SUFFIXES:
        raise UserError(f"weights {path}: not a folder, nor one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        return _numpy(path) if path.suffix == ".npz" else _torch(path)
    except UserError:
        raise
    except Exception as error:  # zipfile, pickle, safetensors and NumPy each have their own for "damaged"
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"weights {path} cannot be read: {type(error).__name__}: {reason}") from error


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(
            f"weights {path}: safetensors is not installed; run: pip install halos-simulator[hf]"
        ) from error
    return load_file(path)


def _torch(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of files that others wrote: said otherwise, or harmless
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"weights {path}: not a state dict (names and tensors, nothing else)")
    return {str(name): tensor for name, tensor in state.items()}


def _numpy(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"weights {path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"weights {path} cannot be read: not a JSON object")
    return value
