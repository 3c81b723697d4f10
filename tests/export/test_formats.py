"""What is exported is, to transformers and safetensors themselves, the model that was trained; or it is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from halos.config.config import load_config
from halos.config.layers import read
from halos.config.yaml_text import to_yaml
from halos.export.__main__ import main
from halos.run.lifecycle import run
from halos.testing import record, tiny

TEXT = "Grüße,\n\tworld\x00€"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-NeoX, not of the usual proportions, trained for a moment on this file's bytes."""
    folder = tmp_path_factory.mktemp("trained")
    model = {"name": "gpt_neox", "hidden_size": 24, "layers": 2, "heads": 2, "intermediate_size": 40,
             "rotary_pct": 0.5, "rotary_base": 500.0, "parallel_residual": False, "layer_norm_eps": 1e-3}  # fmt: skip
    data = {"name": "text", "path": __file__, "sequence_length": 16, "validation_samples": 4}
    sections = tiny(
        train={"optimizer": {"name": "sgd", "lr": 0.5}},
        observers={"progress": False, "tensorboard": False, "trace": False},
    )
    (folder / "c.yaml").write_text(to_yaml(sections | {"model": model, "data": data}), encoding="utf-8")
    run(*load_config(str(folder / "c.yaml"), [f"out={folder / 'run'}"]))
    return folder / "run"


def module(folder: Path, *changes: str) -> torch.nn.Module:
    """Our own, with the weights in `folder`."""
    config, _ = load_config(str(folder / "config.yaml"), changes)
    return config.model.build(256, seed=0)


def test_transformers_loads_it_and_has_the_same_loss_and_the_bytes_as_tokens(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer, GPTNeoXForCausalLM

    folder = tmp_path / "hf"
    assert main([str(trained), "--to", "hf", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    theirs, loading = GPTNeoXForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    batch = torch.randint(0, 256, (3, 17), generator=torch.Generator().manual_seed(1))
    ours = module(trained, f"model.weights={trained}")
    with torch.no_grad():
        loss = float(theirs(input_ids=batch, labels=batch).loss)  # which shifts by itself
        assert float(ours(batch)) == pytest.approx(loss, abs=1e-5)
        assert float(module(trained)(batch)) != pytest.approx(loss, abs=1e-3)  # as it began
    # and the other way, a run that starts from the folder
    again = module(trained, f"model.weights={folder}").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXT)["input_ids"] == list(TEXT.encode())
    assert tokenizer.decode(list(TEXT.encode())) == TEXT
    assert len(tokenizer) == 256
    summary = json.loads((trained / "summary.json").read_text())
    assert f"to a validation loss of {summary['final_validation_loss']:.4f} nats" in (folder / "README.md").read_text()


def test_gpt_neox_by_transformers_is_our_gpt_neox(trained: Path, tmp_path: Path) -> None:
    """The same run: from the same weights, on the same samples, to the same losses but for rounding."""
    assert main([str(trained), "--to", "hf", str(tmp_path / "hf")]) == 0
    config = read(trained / "config.yaml")
    ours = config["model"] | {"weights": str(tmp_path / "hf")}
    theirs = {"name": "transformers", "weights": str(tmp_path / "hf")}
    one, other = (record(config | {"model": model}, ["halos_transformers"]) for model in (ours, theirs))
    for mine, yours in zip(one.updates, other.updates):
        assert yours.losses == pytest.approx(mine.losses, rel=1e-5)
    before, after = (evaluation.loss for evaluation in one.evaluations)
    assert abs(after - before) > 1e-3  # it was trained meanwhile
    assert [evaluation.loss for evaluation in other.evaluations] == pytest.approx([before, after], rel=1e-5)


def test_a_model_of_transformers_is_written_as_it_is(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.0,
              "attn_pdrop": 0.0, "embd_pdrop": 0.0}  # fmt: skip
    folder = bowl(tmp_path, plugins=["halos_transformers"], model={"name": "transformers", "config": config})
    assert main([str(folder), "--to", "hf", str(tmp_path / "hf")]) == 0
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert (type(theirs).__name__, theirs.config.vocab_size) == ("GPT2LMHeadModel", 64)  # the data's
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    expected = torch.load(folder / "model.pt")
    found = theirs.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_tensors_of_any_model_are_written_as_they_are(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert main([str(trained), "--to", "safetensors", str(tmp_path / "new/model.safetensors")]) == 0
    found, expected = load_file(tmp_path / "new/model.safetensors"), torch.load(trained / "model.pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def bowl(folder: Path, **changes: Any) -> Path:
    """A run of the smallest model there is, or of another."""
    sections = tiny(observers={"progress": False, "tensorboard": False, "trace": False}) | changes
    (folder / "c.yaml").write_text(to_yaml(sections), encoding="utf-8")
    run(*load_config(str(folder / "c.yaml"), [f"out={folder / 'run'}"]))
    return folder / "run"


def test_a_model_that_does_not_say_what_it_is_there_is_only_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bowl(tmp_path)
    assert main([str(folder), "--to", "hf", str(tmp_path / "hf")]) == 2
    said = "error: model.name: 'quadratic' does not say what it is in transformers; --to safetensors FILE works\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "hf").exists()
    assert main([str(folder), "--to", "safetensors", str(tmp_path / "bowl.safetensors")]) == 0


def test_nothing_is_overwritten(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").write_text("mine")
    assert main([str(trained), "--to", "hf", str(tmp_path / "here")]) == 2
    assert capsys.readouterr().err.endswith("here exists already and is not empty; choose another name, or delete it\n")
    assert main([str(trained), "--to", "safetensors", str(tmp_path / "here/mine")]) == 2
    assert capsys.readouterr().err.endswith("mine exists already; choose another name, or delete it\n")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["mine"]


def test_without_the_library_nothing_is_written(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert main([str(trained), "--to", "hf", str(tmp_path / "hf")]) == 2
    said = "error: --to: safetensors is not installed; run: pip install halos-simulator[hf]\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "hf").exists()


def test_a_disk_that_is_full_leaves_no_half_file(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from halos.export import formats

    def full(tensors: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "_save_file", lambda: full)
    assert main([str(trained), "--to", "safetensors", str(tmp_path / "new.safetensors")]) == 2
    assert "cannot be written: [Errno 28] No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/run", "--to", "safetensor", "x"]) == 2
    said = "error: --to: 'safetensor' is none of hf, safetensors (did you mean 'safetensors'?)\n"
    assert capsys.readouterr().err == said
