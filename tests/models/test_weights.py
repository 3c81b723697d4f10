"""Weights from files, and one line for everything that can be wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from halos.errors import UserError
from halos.models import weights
from halos.models.gpt_neox import GPTNeoX

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([7.0, 8.0])}
CONSTANTS = {
    "layers.0.attention.bias": torch.ones(2, 2, dtype=torch.bool),
    "layers.0.attention.masked_bias": torch.tensor(-1e9),
    "layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
}


def save_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(tensors, path)


def save_numpy(tensors: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})


def save_shards(tensors: dict[str, Tensor], path: Path) -> None:
    places = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        places[name] = f"pytorch_model-{number}.bin"
        torch.save({name: tensor}, path.parent / places[name])
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))


SAVED: list[tuple[str, Callable[[dict[str, Tensor], Path], None]]] = [
    ("some.safetensors", save_safetensors),
    ("some.npz", save_numpy),
    ("some.pt", torch.save),
    ("some.bin", torch.save),
    ("model.safetensors", save_safetensors),
    ("pytorch_model.bin", torch.save),
    ("pytorch_model.bin.index.json", save_shards),
    ("model.pt", torch.save),
]


@pytest.mark.parametrize(("name", "save"), SAVED, ids=[name for name, _ in SAVED])
def test_every_format_gives_the_trained_tensors_and_no_constants(
    tmp_path: Path, name: str, save: Callable[[dict[str, Tensor], Path], None]
) -> None:
    save({**STATE, **CONSTANTS}, tmp_path / name)
    loaded = weights.load_tensors(tmp_path / name if name.startswith("some") else tmp_path)
    assert set(loaded) == set(STATE)
    assert all(torch.equal(loaded[each], STATE[each]) for each in STATE)


def test_a_models_own_weights_come_back_from_a_numpy_archive(tmp_path: Path) -> None:
    config = {"hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 11}
    network = GPTNeoX(**config).build(None, seed=1)
    save_numpy({name: each.detach() for name, each in network.named_parameters()}, tmp_path / "init.npz")
    again = GPTNeoX(**config, weights=tmp_path / "init.npz").build(None, seed=2)
    batch = torch.arange(10).view(2, 5)
    assert torch.equal(again(batch), network(batch))


def test_half_precision_is_filled_in_as_full(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    weights.fill(module, {"weight": STATE["a.weight"].half(), "bias": STATE["a.bias"].bfloat16()}, Path("here"))
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight.detach(), STATE["a.weight"])


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weight": torch.zeros(2, 3)}, r"weights here: bias is missing; the model needs it, of shape \[2\]"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)},
            r"weights here: weight has shape \[3, 2\]; the model's has \[2, 3\]",
        ),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2, dtype=torch.int64)},
            "weights here: bias holds torch.int64, not floating-point numbers",
        ),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "b.weight": torch.zeros(1), "b.bias": torch.zeros(1)},
            "weights here: the model has no b.weight and 1 more",
        ),
    ],
    ids=["missing", "misshapen", "integers", "left over"],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_changed(tensors: dict[str, Tensor], problem: str) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(UserError, match=problem):
        weights.fill(module, tensors, Path("here"))
    assert torch.equal(module.weight.detach(), before)


def tied() -> nn.Module:
    module = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3, affine=False))
    module[1].weight = module[0].weight
    return module


@pytest.mark.parametrize("names", [("0.weight",), ("1.weight",), ("0.weight", "1.weight")])
def test_a_tied_parameter_goes_by_any_of_its_names(names: tuple[str, ...]) -> None:
    module, value = tied(), torch.arange(6.0).view(3, 2)
    weights.fill(module, dict.fromkeys(names, value), Path("here"))
    assert torch.equal(module[1].weight, value) and module[1].weight is module[0].weight


def test_what_is_tied_in_the_model_cannot_differ_in_the_weights() -> None:
    with pytest.raises(UserError, match=r"^weights here: 0.weight and 1.weight differ, but the model has them tied$"):
        weights.fill(tied(), {"0.weight": torch.zeros(3, 2), "1.weight": torch.ones(3, 2)}, Path("here"))


def test_buffers_are_taken_if_they_are_there() -> None:
    module, theirs = tied(), {"0.weight": torch.zeros(3, 2), "2.running_mean": torch.tensor([1.0, 2.0, 3.0])}
    weights.fill(module, theirs, Path("here"))
    assert module[2].running_mean.tolist() == [1, 2, 3] and module[2].running_var.tolist() == [1, 1, 1]
    with pytest.raises(UserError, match=r"2.num_batches_tracked holds torch.float32, not whole numbers"):
        weights.fill(module, {**theirs, "2.num_batches_tracked": torch.tensor(1.5)}, Path("here"))


def nothing(path: Path) -> Path:
    return path / "nowhere"


def empty_folder(path: Path) -> Path:
    return path


def garbage(suffix: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        file = path / f"damaged{suffix}"
        file.write_bytes(b"not what it seems, " * 10)
        return file

    return make


def cut_short(path: Path) -> Path:
    torch.save(STATE, path / "whole.pt")
    (path / "cut.pt").write_bytes((path / "whole.pt").read_bytes()[:500])
    return path / "cut.pt"


def objects(path: Path) -> Path:
    np.savez(path / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    return path / "objects.npz"


def code(path: Path) -> Path:
    torch.save({"a": Path("/")}, path / "code.pt")  # anything but tensors would have to be executed
    return path / "code.pt"


def nested(path: Path) -> Path:
    torch.save({"model": STATE, "step": 3}, path / "nested.pt")
    return path / "nested.pt"


def index_without_map(path: Path) -> Path:
    (path / "model.safetensors.index.json").write_text("{}")
    return path


def index_that_is_not_json(path: Path) -> Path:
    (path / "model.safetensors.index.json").write_text("{")
    return path


def index_of_missing_shards(path: Path) -> Path:
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "shard.bin"}}))
    return path


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (nothing, "no such file or folder"),
        (empty_folder, "the folder holds none of model.safetensors"),
        (garbage(".txt"), "nor one of .safetensors, .pt, .bin, .npz"),
        (garbage(".safetensors"), "cannot be read"),
        (garbage(".npz"), "cannot be read"),
        (garbage(".pt"), "cannot be read"),
        (cut_short, "cannot be read"),
        (objects, "cannot be read"),
        (code, "cannot be read"),
        (nested, "not a state dict"),
        (index_without_map, "no weight_map"),
        (index_that_is_not_json, "cannot be read"),
        (index_of_missing_shards, "shard.bin: no such file"),
    ],
)
def test_what_is_missing_or_damaged_is_told_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], problem: str
) -> None:
    path = make(tmp_path)
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors")
    with pytest.raises(UserError, match=problem) as caught:
        weights.load_tensors(path)
    message = str(caught.value)
    assert str(tmp_path) in message and "\n" not in message


def test_safetensors_is_asked_for_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    torch.save(STATE, tmp_path / "model.pt")
    assert set(weights.load_tensors(tmp_path)) == set(STATE)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install halos-simulator\[hf\]"):
        weights.load_tensors(tmp_path)


def test_a_checkpoint_says_its_architecture_if_it_has_a_config(tmp_path: Path) -> None:
    assert weights.architecture(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    assert weights.architecture(tmp_path) == {"model_type": "gpt_neox"}
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        weights.architecture(tmp_path)
