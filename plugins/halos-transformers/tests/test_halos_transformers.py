"""Models of transformers: their loss is transformers' own, and they train and resume as any other."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import halos_transformers
import pytest
import torch
from halos_transformers import Transformers

from halos import ConfigError, Model, UserError
from halos.testing import record, resuming, tiny
from halos.testing.conformance import ModelConformance

PLUGIN = ["halos_transformers"]
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}  # fmt: skip
LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "intermediate_size": 24}  # fmt: skip
NEOX = {"model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24}  # fmt: skip
BATCH = torch.randint(0, 64, (3, 9), generator=torch.Generator().manual_seed(1))


class TestConformance(ModelConformance):
    plugins = PLUGIN
    sections = tuple({"name": "transformers", "config": config} for config in (GPT2, LLAMA, NEOX))


def own_loss(model: Any) -> float:
    """By transformers' own forward pass and loss, which shifts the labels by itself."""
    with torch.no_grad():
        return float(type(model).forward(model, input_ids=BATCH, labels=BATCH).loss)


@pytest.mark.parametrize("config", [GPT2, LLAMA, NEOX], ids=lambda config: config["model_type"])
def test_its_loss_is_that_of_transformers(config: dict[str, Any]) -> None:
    model = Transformers(config).build(64, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # away from ln 64
        assert float(model(BATCH)) == pytest.approx(own_loss(model), rel=1e-6)
        assert abs(own_loss(model) - math.log(64)) > 0.01
        logits = Transformers(config).logits(model, BATCH).flatten(0, 1)
        assert float(torch.nn.functional.cross_entropy(logits, BATCH[:, 1:].flatten())) == float(model(BATCH))
        for parameter in model.parameters():
            parameter.zero_()
        assert float(model(BATCH)) == pytest.approx(math.log(64))


def test_a_run_that_is_cut_or_extended_is_the_run_that_was_not() -> None:
    train = {"optimizer": {"name": "adamw", "lr": 0.01}, "clip": 1.0}
    sections = tiny(train=train, budget={"local_steps": 16}) | {"model": {"name": "transformers", "config": GPT2}}
    assert resuming.problem(sections, PLUGIN) is None


def test_it_has_a_perplexity_and_weights_by_a_seed_of_its_own() -> None:
    model = {"name": "transformers", "config": GPT2}
    runs = [
        record(tiny(budget={"local_steps": 2}, seed=seed) | {"model": model | own}, PLUGIN)
        for seed, own in ((1, {"seed": 7}), (2, {"seed": 7}), (7, {}))
    ]
    first = [run.evaluations[0] for run in runs]
    assert [each.metrics["perplexity"] for each in first] == [pytest.approx(math.exp(each.loss)) for each in first]
    starts = [run.updates[0].start for run in runs]
    assert starts[0].distance(starts[1]) == starts[0].distance(starts[2]) == 0.0


def test_its_size_is_known_without_weights() -> None:
    # Embeddings of 64 tokens and 32 positions, tied; two layers of 12 · 16² + 13 · 16; a norm of 2 · 16.
    shapes = Transformers(GPT2).shapes(64)
    assert sum(math.prod(shape) for shape in shapes.values()) == (64 + 32) * 16 + 2 * (12 * 256 + 13 * 16) + 32
    # Llama 3 70B has 70,553,706,496 parameters, 282 GB of them; only their shapes are made here.
    large = LLAMA | {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
                     "intermediate_size": 28672, "vocab_size": 128256}  # fmt: skip
    timed = record(tiny(executor="timing", budget={"local_steps": 4})
                   | {"model": {"name": "transformers", "config": large}}, PLUGIN)  # fmt: skip
    assert timed.experiment.parameters == 70_553_706_496


@pytest.mark.parametrize("form", ["folder", "file", "mapping"])
def test_a_configuration_is_a_folder_a_file_or_a_mapping(form: str, tmp_path: Path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(**{key: value for key, value in LLAMA.items() if key != "model_type"}).save_pretrained(tmp_path)
    given = {"folder": tmp_path, "file": tmp_path / "config.json", "mapping": LLAMA | {"vocab_size": 32000}}[form]
    model: Model = Transformers(given)  # type: ignore[arg-type]
    assert model.shapes(64)["model.embed_tokens.weight"] == (32000, 16)  # it says so, whatever the data have


def test_weights_that_lack_something_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    Transformers(LLAMA | {"vocab_size": 64}).build(64, seed=0).save_pretrained(tmp_path)  # type: ignore[operator]
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.pop("model.norm.weight") is not None
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights: '.*' lacks model.norm.weight$"):
        Transformers(weights=tmp_path).build(64, seed=0)


def test_samples_longer_than_its_positions_are_refused() -> None:
    model = Transformers(GPT2 | {"n_positions": 7}).build(64, seed=0)
    with pytest.raises(ConfigError, match=r"sequence_length: 8 is more than the model's max_position_embeddings, 7"):
        model(BATCH)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers is not installed; run: pip install halos-transformers\[hf\]"):
        Transformers(GPT2).shapes(64)


def test_nothing_is_loaded_before_it_is_needed() -> None:
    code = "import sys, halos, halos_transformers; assert not {'transformers', 'torch.nn'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(halos_transformers.__file__).parent)
    assert done.returncode == 0
