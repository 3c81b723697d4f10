"""GPT-NeoX: equal to transformers' to rounding, and of the published sizes."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from halos.errors import ConfigError, UserError
from halos.models.gpt_neox import SIZES, GPTNeoX
from halos.models.neox_network import Network

TINY = GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50)


def tokens(*shape: int, below: int = 50, seed: int = 0) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(seed))


def count(config: GPTNeoX, vocab_size: int | None = None) -> int:
    return sum(math.prod(shape) for shape in config.shapes(vocab_size).values())


def hugging_face(config: GPTNeoX, **others: Any) -> Any:
    """transformers' model of the same configuration, with biases and norms that are not just 0 and 1."""
    transformers = pytest.importorskip("transformers")
    size = config.dimensions()
    torch.manual_seed(7)
    model = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.hidden_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=size.intermediate_size,
            rotary_pct=config.rotary_pct,
            rotary_emb_base=config.rotary_base,
            layer_norm_eps=config.layer_norm_eps,
            use_parallel_residual=config.parallel_residual,
            tie_word_embeddings=False,
            use_cache=False,
            **others,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def renamed(state: dict[str, Tensor], like: Any) -> dict[str, Tensor]:
    """Before version 5, transformers called the head embed_out."""
    old = "embed_out.weight" in like.state_dict()
    return {name.replace("lm_head", "embed_out") if old else name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, parallel_residual=False),
        GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, rotary_pct=0.5, rotary_base=500.0),
        GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, rotary_pct=1.0, layer_norm_eps=1e-3),
        GPTNeoX(hidden_size=30, layers=1, heads=3, intermediate_size=47, vocab_size=13),
        GPTNeoX(hidden_size=36, layers=3, heads=3, vocab_size=13),  # a quarter of 12 is odd: 3 dimensions, 2 pairs
    ],
    ids=["plain", "sequential", "half rotated", "all rotated", "odd sizes", "odd rotation"],
)
def test_logits_loss_and_gradients_equal_those_of_transformers(config: GPTNeoX) -> None:
    theirs = hugging_face(config)
    ours = config.build(None, seed=0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(theirs.state_dict()[next(iter(renamed({name: parameter}, theirs)))])
    batch = tokens(3, 18, below=config.dimensions().vocab_size)
    logits = theirs(input_ids=batch[:, :-1]).logits
    torch.testing.assert_close(ours.logits(batch[:, :-1]), logits, atol=1e-4, rtol=0)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.testing.assert_close(ours(batch), loss, atol=1e-5, rtol=0)
    loss.backward()
    ours(batch).backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = gradients[next(iter(renamed({name: parameter}, theirs)))].grad
        torch.testing.assert_close(
            parameter.grad, expected, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_state_dict_goes_to_transformers_and_back_under_the_same_names() -> None:
    theirs, ours = hugging_face(TINY), TINY.build(None, seed=3)
    theirs.load_state_dict(renamed(ours.state_dict(), theirs), strict=True)
    batch = tokens(2, 9)
    torch.testing.assert_close(theirs(input_ids=batch).logits, ours.logits(batch), atol=1e-5, rtol=0)
    back = TINY.build(None, seed=4)
    back.load_state_dict({name.replace("embed_out", "lm_head"): each for name, each in theirs.state_dict().items()})
    assert torch.equal(back.logits(batch), ours.logits(batch))


def test_a_checkpoint_folder_of_transformers_is_a_place_to_start_from(tmp_path: Path) -> None:
    theirs = hugging_face(TINY)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    batch = tokens(2, 9)
    for folder in ("whole", "shards"):
        config = GPTNeoX(hidden_size=32, layers=2, heads=4, weights=tmp_path / folder)
        ours = config.build(50, seed=0)
        torch.testing.assert_close(ours.logits(batch), theirs(input_ids=batch).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"heads": 8}, "heads"),
        ({"rotary_pct": 0.5}, "rotary_pct"),
        ({"rotary_base": 500.0}, "rotary_base"),
        ({"parallel_residual": False}, "parallel_residual"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ({"vocab_size": 51}, "vocab_size"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_even_if_every_shape_fits(
    tmp_path: Path, changed: dict[str, Any], key: str
) -> None:
    hugging_face(TINY).save_pretrained(tmp_path)
    same = {"hidden_size": 32, "layers": 2, "heads": 4, "vocab_size": 50, "weights": tmp_path}
    GPTNeoX(**same).build(None, seed=0)
    with pytest.raises(ConfigError, match="that of the weights in") as caught:
        GPTNeoX(**{**same, **changed}).build(None, seed=0)
    assert caught.value.key == key


def test_a_checkpoint_with_another_activation_is_refused(tmp_path: Path) -> None:
    hugging_face(TINY, hidden_act="relu").save_pretrained(tmp_path)
    config = GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, weights=tmp_path)
    with pytest.raises(ConfigError, match="not a plain GPT-NeoX checkpoint, but gpt_neox, relu, default"):
        config.build(None, seed=0)


def test_the_head_may_go_by_its_older_name_and_constants_are_left_out(tmp_path: Path) -> None:
    state = TINY.build(None, seed=3).state_dict()
    state["embed_out.weight"] = state.pop("lm_head.weight")
    state["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    state["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    state["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(1)
    torch.save(state, tmp_path / "pytorch_model.bin")
    config = GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, weights=tmp_path)
    assert torch.equal(config.build(None, seed=9).lm_head.weight, state["embed_out.weight"])


@pytest.mark.parametrize("with_head", [False, True])
def test_a_checkpoint_whose_head_is_its_embedding_gives_both_to_ours(tmp_path: Path, with_head: bool) -> None:
    state = TINY.build(None, seed=3).state_dict()
    head = state.pop("lm_head.weight")
    torch.save(state | ({"embed_out.weight": head} if with_head else {}), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    network = GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=50, weights=tmp_path).build(None, seed=9)
    embedding = state["gpt_neox.embed_in.weight"]  # transformers, too, takes it whatever the checkpoint has as a head
    assert torch.equal(network.lm_head.weight, embedding) and torch.equal(network.gpt_neox.embed_in.weight, embedding)
    assert network.lm_head.weight is not network.gpt_neox.embed_in.weight


def test_weights_of_other_dimensions_are_refused_naming_tensor_and_shapes(tmp_path: Path) -> None:
    torch.save(TINY.build(None, seed=3).state_dict(), tmp_path / "model.pt")
    config = GPTNeoX(hidden_size=32, layers=2, heads=4, vocab_size=60, weights=tmp_path)
    with pytest.raises(UserError, match=r"gpt_neox.embed_in.weight has shape \[50, 32\]; the model's has \[60, 32\]"):
        config.build(None, seed=0)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("pythia-14m", 14_067_712),
        ("pythia-31m", 30_494_720),
        ("pythia-70m", 70_426_624),
        ("pythia-160m", 162_322_944),
        ("pythia-410m", 405_334_016),
        ("pythia-1b", 1_011_781_632),
    ],
)
def test_the_pythia_sizes_have_their_published_number_of_parameters(size: str, parameters: int) -> None:
    assert count(GPTNeoX(size=size)) == parameters
    assert size in SIZES


@pytest.mark.parametrize("config", [TINY, GPTNeoX(hidden_size=6, layers=3, heads=1, intermediate_size=5, vocab_size=7)])
def test_the_shapes_foretold_are_those_built_in_the_same_order(config: GPTNeoX) -> None:
    built = [(name, tuple(parameter.shape)) for name, parameter in config.build(None, seed=0).named_parameters()]
    assert built == list(config.shapes(None).items())
    assert set(config.build(None, seed=0).state_dict()) == set(config.shapes(None))


def test_given_dimensions_override_those_of_the_size() -> None:
    shapes = GPTNeoX(size="pythia-14m", layers=2, hidden_size=64, vocab_size=100).shapes(None)
    assert shapes["lm_head.weight"] == (100, 64)
    assert shapes["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"] == (256, 64)
    assert "gpt_neox.layers.2.attention.dense.weight" not in shapes


def test_the_vocabulary_is_ones_own_or_else_the_datas_or_else_the_sizes() -> None:
    assert GPTNeoX(size="pythia-14m", vocab_size=600).dimensions(512).vocab_size == 600
    assert GPTNeoX(size="pythia-14m").dimensions(512).vocab_size == 512
    assert GPTNeoX(size="pythia-14m").dimensions(None).vocab_size == 50304
    with pytest.raises(ConfigError, match="vocab_size: 256 is not enough for the data's 512 tokens"):
        GPTNeoX(size="pythia-14m", vocab_size=256).build(512, seed=0)
    with pytest.raises(ConfigError, match="vocab_size: needed"):
        GPTNeoX(hidden_size=8, layers=1, heads=1).shapes(None)


def test_the_initial_loss_is_that_of_a_guess() -> None:
    config = GPTNeoX(hidden_size=64, layers=2, heads=4)
    assert config.build(512, seed=0)(tokens(4, 65, below=512)).item() == pytest.approx(math.log(512), abs=0.05)


def test_initial_weights_have_the_chosen_spread_biases_are_zero_norms_one() -> None:
    network = GPTNeoX(hidden_size=64, layers=2, heads=4, vocab_size=512, initializer_range=0.05).build(None, seed=0)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            assert parameter.mean().item() == pytest.approx(0.0, abs=0.004), name
            assert parameter.std().item() == pytest.approx(0.05, rel=0.05), name
        else:
            assert parameter.unique().tolist() == [1.0 if name.endswith("norm.weight") else 0.0], name


def test_a_seed_is_a_set_of_weights_and_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (TINY.build(None, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_it_learns_a_sequence_by_heart() -> None:
    network = TINY.build(None, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    batch = tokens(1, 17)
    for _ in range(60):
        optimizer.zero_grad()
        loss = network(batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_a_prediction_depends_on_no_later_token() -> None:
    network = TINY.build(None, seed=0)
    batch = tokens(1, 12)
    changed = batch.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 50
    torch.testing.assert_close(network.logits(batch)[0, :8], network.logits(changed)[0, :8])
    assert not torch.allclose(network.logits(batch)[0, 8:], network.logits(changed)[0, 8:])


def test_parameters_may_be_moved_into_a_flat_buffer_afterwards() -> None:
    network, batch = TINY.build(None, seed=0), tokens(2, 9)
    loss = network(batch).item()
    flat = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    position = 0
    for parameter in network.parameters():
        parameter.data = flat[position : position + parameter.numel()].view(parameter.shape)
        position += parameter.numel()
    assert network(batch).item() == loss
    flat.zero_()
    assert network(batch).item() == pytest.approx(math.log(50))


def test_what_was_evaluated_first_can_be_trained_saved_and_sent_elsewhere() -> None:
    network = TINY.build(None, seed=0)
    batch = tokens(2, 9)
    with torch.inference_mode():
        loss = network(batch).item()
    network(batch).backward()  # would fail on rotation tables made for inference only
    assert network(tokens(2, 30)).isfinite()  # longer than the tables so far
    assert set(network.state_dict()) == set(TINY.shapes(None))
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert twin(batch).item() == loss


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_workers_stacked_by_vmap_get_the_gradients_each_would_get_alone() -> None:
    network = TINY.build(None, seed=0)
    names = [name for name, _ in network.named_parameters()]
    stacked = [torch.stack([(1 + 0.1 * i) * each.detach() for i in range(3)]) for each in network.parameters()]
    batches = tokens(3, 2, 9)

    def loss_of(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(network, parameters, (batch,))

    gradients, losses = vmap(grad_and_value(loss_of))(dict(zip(names, stacked)), batches)
    copy.deepcopy(network)  # nothing of the transformation was kept
    for i in range(3):
        alone = {name: each[i].clone().requires_grad_() for name, each in zip(names, stacked)}
        loss = loss_of(alone, batches[i])
        loss.backward()
        torch.testing.assert_close(losses[i], loss)
        for name, each in alone.items():
            torch.testing.assert_close(gradients[name][i], each.grad, atol=1e-6, rtol=1e-4)


def test_autocast_to_bfloat16_rotates_and_takes_the_loss_in_fp32() -> None:
    network, batch = TINY.build(None, seed=0), tokens(2, 33)
    exact = network(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.logits(batch).dtype == torch.bfloat16
        loss = network(batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=0.01)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_loss_of_a_network_in_half_precision_is_taken_in_fp32() -> None:
    network = TINY.build(None, seed=0).bfloat16()
    assert network(tokens(2, 9)).dtype == torch.float32
    assert network.double()(tokens(2, 9)).dtype == torch.float64


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"size": "pythia-13m"}, r"size: 'pythia-13m' is not one that is known .did you mean.* pythia-14m, "),
        ({}, "hidden_size: needed when there is no size"),
        ({"hidden_size": 64, "layers": 2}, "heads: needed when there is no size"),
        ({"hidden_size": 64, "heads": 4}, "layers: needed when there is no size"),
        ({"hidden_size": 64, "layers": 2, "heads": 3}, r"heads: 3 is not a divisor of hidden_size \(64\)"),
        ({"size": "pythia-14m", "hidden_size": 130}, r"heads: 4 is not a divisor of hidden_size \(130\)"),
        ({"size": "pythia-14m", "layers": 0}, "layers: 0 is not a positive number"),
        ({"size": "pythia-14m", "intermediate_size": -1}, "intermediate_size: -1 is not a positive number"),
        ({"size": "pythia-14m", "vocab_size": 0}, "vocab_size: 0 is not a positive number"),
        ({"size": "pythia-14m", "wire_bytes": 0}, "wire_bytes: 0 is not a positive number"),
        ({"size": "pythia-14m", "rotary_pct": 1.5}, "rotary_pct: 1.5 is not a fraction of a head"),
        ({"hidden_size": 9, "layers": 1, "heads": 3, "rotary_pct": 1.0}, "rotary_pct: 1.0 is not a fraction of a head"),
        ({"size": "pythia-14m", "rotary_base": 0.0}, "rotary_base: 0.0 is not a positive number"),
        ({"size": "pythia-14m", "layer_norm_eps": 0.0}, "layer_norm_eps: 0.0 is not a positive number"),
        ({"size": "pythia-14m", "initializer_range": -1.0}, "initializer_range: -1.0 is not a standard deviation"),
    ],
)
def test_what_cannot_be_is_refused_with_field_and_value(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        GPTNeoX(**fields)


def test_a_network_built_is_a_module_of_float32() -> None:
    network = TINY.build(None, seed=0)
    assert isinstance(network, Network)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert list(network.buffers()) == []
