"""Muon: steps worked out by numpy's SVD, the identities of its iteration, PyTorch's own, and the rest of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from halos_muon import COEFFICIENTS, EMBEDDINGS, Muon, Others, divided

from halos import AdamW, ConfigError, Layout, Moments
from halos.testing import record, tiny
from halos.testing.conformance import InnerOptimizerConformance

PLUGIN = ("halos_muon",)
CPU = torch.device("cpu")
BOUNDS = {"jordan": (0.682, 1.134), "muloco": (0.978, 1.032)}  # of singular values that were at least 0.01, ‖X‖ = 1
MULOCO = {
    "name": "muon",
    "form": "sum",
    "momentum": 0.9,
    "nesterov": False,
    "coefficients": "muloco",
    "scale": "spectral",
    "weight_decay": 0.01,
    "adamw": {"lr": 1e-3, "betas": [0.9, 0.99], "eps": 1e-8},
}


class TestConformance(InnerOptimizerConformance):
    plugins = PLUGIN
    sections = (
        {"name": "muon", "adamw": {"lr": 1e-3}},
        MULOCO,
        {"name": "muon", "scale": "rms", "steps": 3, "embeddings": [], "adamw": {"lr": 0.01}},
    )


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def of(optimizer: Muon, matrix: torch.Tensor) -> torch.Tensor:
    """O of one matrix."""
    return optimizer.orthogonal(matrix[None])[0]


def one_step(optimizer: Muon, theta: torch.Tensor, *gradients: torch.Tensor, lr: float = 0.1) -> torch.Tensor:
    """A matrix after steps, as the only tensor there is."""
    layout = Layout({"matrix": tuple(theta.shape)}, theta.dtype)
    params, state = theta.flatten().clone(), optimizer.init(layout, CPU)
    for grad in gradients:
        optimizer.step(params, grad.flatten().clone(), state, lr, layout)
    return params.view(theta.shape)


# The iteration


@pytest.mark.parametrize("shape", [(7, 7), (12, 5), (5, 12), (9, 1)])
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_singular_vectors_stay_and_singular_values_come_near_one(coefficients: Any, shape: tuple[int, int]) -> None:
    """By numpy's SVD, of which the iteration knows nothing: U and V kept, what is between them in the known bounds."""
    k = min(shape)
    values = np.geomspace(1.0, 0.02, k)  # of a Frobenius norm below 2: at least 0.01 of it
    left, _, right = np.linalg.svd(normal(*shape).numpy(), full_matrices=False)
    found = of(Muon(coefficients=coefficients), torch.from_numpy(left * values @ right)).numpy()
    middle = left.T @ found @ right.T
    assert np.abs(middle - np.diag(np.diag(middle))).max() < 1e-12
    low, high = BOUNDS[coefficients]
    assert ((low <= np.diag(middle)) & (np.diag(middle) <= high)).all()
    assert np.abs(left @ middle @ right - found).max() < 1e-12  # and there is nothing beside these
    if coefficients == "muloco":
        assert np.abs(found - left @ right).max() < 0.04  # the orthogonal factor itself


def test_no_singular_value_of_many_leaves_the_bounds() -> None:
    """A thousand from 0.01 to 1, by the polynomials alone: p(σ) = a σ + b σ³ + c σ⁵."""
    for name, (low, high) in BOUNDS.items():
        sigma = np.geomspace(0.01, 1.0, 1000)
        for a, b, c in COEFFICIENTS[name]:
            sigma = a * sigma + b * sigma**3 + c * sigma**5
        assert (sigma.min(), sigma.max()) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_fewer_iterations_are_the_first_ones() -> None:
    """Of a 1 × 1 matrix, x = ±1 after the division (by 1e-7 less): p₁(1), and p₂(p₁(1))."""
    (a, b, c), (d, e, f) = COEFFICIENTS["muloco"][:2]
    once = a + b + c
    for steps, expected in ((1, once), (2, d * once + e * once**3 + f * once**5)):
        found = of(Muon(coefficients="muloco", steps=steps), torch.full((1, 1), -5.0, dtype=torch.float64))
        assert found.item() == pytest.approx(-expected, rel=1e-6)


def test_rotations_and_transposes_go_through_it() -> None:
    g, optimizer = normal(6, 9), Muon()
    u, v = (torch.linalg.qr(normal(n, n, seed=n))[0] for n in (6, 9))
    torch.testing.assert_close(of(optimizer, u @ g @ v), u @ of(optimizer, g) @ v, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(of(optimizer, g.mT), of(optimizer, g).mT, rtol=0.0, atol=1e-13)


def test_padding_changes_nothing_and_zero_stays_zero() -> None:
    g = normal(4, 6)
    padded = torch.zeros(7, 9, dtype=torch.float64)
    padded[:4, :6] = g
    found = of(Muon(), padded)
    torch.testing.assert_close(found[:4, :6], of(Muon(), g), rtol=0.0, atol=1e-13)
    found[:4, :6] = 0.0
    assert not found.any() and not of(Muon(), torch.zeros(3, 5)).any()


def test_half_precision_is_as_good_as_its_digits() -> None:
    g = normal(16, 32, dtype=torch.float32)
    found = of(Muon(bfloat16=True), g)
    assert found.dtype == torch.float32
    away = torch.linalg.vector_norm(found - of(Muon(), g)) / torch.linalg.vector_norm(found)
    assert 1e-4 < away < 0.05


# A step


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("form", ["average", "sum"])
@pytest.mark.parametrize("scale", ["max1", "spectral", "rms", "none"])
def test_three_steps_by_numpy(scale: Any, form: Any, nesterov: bool) -> None:
    """By the SVD of a momentum worked out in numpy, singular values by the polynomial; decay first, by the rate."""
    optimizer = Muon(momentum=0.8, form=form, nesterov=nesterov, scale=scale, weight_decay=0.5)
    theta, grads = normal(6, 4), [normal(6, 4, seed=seed) for seed in (1, 2, 3)]
    expected, m, lr = theta.numpy(), np.zeros((6, 4)), 0.1
    fresh = 0.2 if form == "average" else 1.0
    times = {"max1": np.sqrt(1.5), "spectral": np.sqrt(1.5), "rms": 0.2 * np.sqrt(6), "none": 1.0}[scale]
    for grad in grads:
        m = 0.8 * m + fresh * grad.numpy()
        u = fresh * grad.numpy() + 0.8 * m if nesterov else m
        left, values, right = np.linalg.svd(u, full_matrices=False)
        values = values / (np.linalg.norm(u) + 1e-7)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        expected = (1 - lr * 0.5) * expected - lr * times * (left * values @ right)
    found = one_step(optimizer, theta, *grads, lr=lr)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.0, atol=1e-12)


def test_wide_matrices_are_scaled_by_their_shape() -> None:
    """From θ = 0 with a rate of 1 and no decay, steps are s · O: of [3, 12] √¼, √1 and 0.2 √12 against 1."""
    grad, theta = normal(3, 12), torch.zeros(3, 12, dtype=torch.float64)
    plain = one_step(Muon(scale="none"), theta, grad, lr=1.0)
    for scale, times in (("spectral", 0.5), ("max1", 1.0), ("rms", 0.2 * 12**0.5)):
        torch.testing.assert_close(one_step(Muon(scale=scale), theta, grad, lr=1.0), times * plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("nesterov", [True, False])
def test_average_and_sum_step_alike_and_the_gradients_size_is_no_matter(nesterov: bool) -> None:
    theta, grads = normal(5, 7), [normal(5, 7, seed=seed) for seed in range(1, 5)]
    average, total = (
        one_step(Muon(form=form, nesterov=nesterov), theta, *grads)  # type: ignore[arg-type]
        for form in ("average", "sum")
    )
    torch.testing.assert_close(average, total, rtol=0.0, atol=1e-6)
    larger = one_step(Muon(nesterov=nesterov), theta, *(1000.0 * grad for grad in grads))
    torch.testing.assert_close(average, larger, rtol=0.0, atol=1e-6)
    assert not torch.allclose(average, theta, rtol=0.0, atol=1e-2)


def test_against_pytorchs_own() -> None:
    """Which iterates in bfloat16, with coefficients of its own; ours in the same form and precision, by its digits."""
    theirs_of = getattr(torch.optim, "Muon", None)
    if theirs_of is None:
        pytest.skip("this PyTorch has none")
    start, grads = (
        normal(12, 8, dtype=torch.float32),
        [normal(12, 8, seed=seed, dtype=torch.float32) for seed in (1, 2, 3)],
    )
    parameter = torch.nn.Parameter(start.clone())
    theirs = theirs_of([parameter], lr=0.1, weight_decay=0.1, momentum=0.95, nesterov=True)
    for grad in grads:
        parameter.grad = grad.clone()
        theirs.step()
    ours = one_step(Muon(weight_decay=0.1, bfloat16=True), start, *grads)
    moved = torch.linalg.vector_norm(parameter.detach() - start)
    assert torch.linalg.vector_norm(ours - parameter.detach()) < 0.02 * moved


# Many tensors


NEOX = {  # of gpt_neox with a width of 8, two layers and 20 tokens
    "gpt_neox.embed_in.weight": (20, 8),
    **{
        f"gpt_neox.layers.{layer}.{name}": shape
        for layer in (0, 1)
        for name, shape in {
            "input_layernorm.weight": (8,),
            "attention.query_key_value.weight": (24, 8),
            "attention.query_key_value.bias": (24,),
            "attention.dense.weight": (8, 8),
            "mlp.dense_h_to_4h.weight": (32, 8),
            "mlp.dense_4h_to_h.weight": (8, 32),
        }.items()
    },
    "gpt_neox.final_layer_norm.weight": (8,),
    "lm_head.weight": (20, 8),
}


def test_muon_has_the_matrices_between_embedding_and_head() -> None:
    layout = Layout(NEOX)
    muon = {name for name in NEOX if layout.slice_of(name) in divided(layout, EMBEDDINGS).matrices}
    kinds = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    assert muon == {f"gpt_neox.layers.{layer}.{kind}.weight" for layer in (0, 1) for kind in kinds}
    assert [(group.shape, len(group.places)) for group in divided(layout, EMBEDDINGS).groups] == [
        ((24, 8), 2), ((8, 8), 2), ((32, 8), 2), ((8, 32), 2)
    ]  # fmt: skip


def test_it_keeps_one_number_for_its_own_and_two_for_others() -> None:
    layout = Layout(NEOX)
    sizes = {name: tensor.numel() for name, tensor in Muon().init(layout, torch.device("meta")).items()}
    muon = 2 * (24 * 8 + 8 * 8 + 32 * 8 + 8 * 32)
    assert sizes == {"momentum": muon, "step": 1, "exp_avg": layout.size - muon, "exp_avg_sq": layout.size - muon}


def test_of_all_tensors_at_once_it_is_what_it_is_of_each_alone() -> None:
    """And of those that are no matrices, AdamW, with the very bits, at its own rate."""
    layout, optimizer = Layout(NEOX), Muon(adamw=Others(lr=0.005))
    params, state = normal(layout.size, dtype=torch.float32), optimizer.init(layout, CPU)
    muon = {name for name in NEOX if layout.slice_of(name) in divided(layout, EMBEDDINGS).matrices}
    rest = Layout({name: shape for name, shape in NEOX.items() if name not in muon})
    adamw, start = AdamW(eps=1e-10, weight_decay=0.01), params.clone()
    others, kept = torch.cat([params[layout.slice_of(name)] for name in rest.shapes]), adamw.init(rest, CPU)
    grads = [normal(layout.size, seed=seed, dtype=torch.float32) for seed in range(1, 4)]
    for grad in grads:
        adamw.step(others, torch.cat([grad[layout.slice_of(name)] for name in rest.shapes]), kept, 0.025, rest)
        optimizer.step(params, grad.clone(), state, 0.1, layout)  # 0.005 / 0.02 · 0.1 = 0.025
    for name, shape in NEOX.items():
        piece = layout.slice_of(name)
        if name in muon:
            alone = one_step(optimizer, start[piece].view(shape), *(grad[piece].view(shape) for grad in grads))
            torch.testing.assert_close(params[piece].view(shape), alone, rtol=0.0, atol=1e-5)
        else:
            assert torch.equal(params[piece], others[rest.slice_of(name)])


def test_more_than_two_dimensions_are_flattened() -> None:
    grad, theta = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1)
    whole = one_step(Muon(), theta, grad)
    torch.testing.assert_close(
        whole.flatten(1), one_step(Muon(), theta.flatten(1), grad.flatten(1)), rtol=0.0, atol=0.0
    )


def test_a_tensor_without_numbers_is_nobodys() -> None:
    shapes = {"a": (2, 3), "no_rows": (0, 3), "no_columns": (3, 0), "none": (0,)}
    layout, grad, theta = Layout(shapes, torch.float64), normal(6), normal(6, seed=1)
    params, state = theta.clone(), Muon().init(layout, CPU)
    Muon().step(params, grad.clone(), state, 0.1, layout)
    assert torch.equal(params.view(2, 3), one_step(Muon(), theta.view(2, 3), grad.view(2, 3)))


def test_a_list_of_ones_own_says_what_is_adamws() -> None:
    layout = Layout({"a.head.weight": (3, 3), "head.weight": (3, 3), "overhead.weight": (3, 3), "b": (3,)})
    names = [name for name in layout.shapes if layout.slice_of(name) in divided(layout, ("head.weight",)).matrices]
    assert names == ["overhead.weight"]
    with pytest.raises(ConfigError, match=r"^embeddings: no tensor is called 'haed.weight'; there are: a.head.weight"):
        Muon(embeddings=["haed.weight"]).init(layout, CPU)


# Rows


def test_rows_are_batched_and_each_has_its_own_norm() -> None:
    """One with gradients a million times as large as the others', or zero, in the middle."""
    layout, optimizer = Layout(NEOX, torch.float64), Muon(weight_decay=0.1)
    rates = torch.tensor([[0.1, 0.2, 0.3]] * 2, dtype=torch.float64)
    scales = (1.0, 1e6, 0.0)
    params = torch.stack([normal(layout.size, seed=row) for row in range(3)])
    alone = params.clone()
    states: list[Moments] = [optimizer.init(layout, CPU) for _ in range(3)]
    state = {name: torch.stack([each[name] for each in states]) for name in states[0]}
    grad = torch.empty_like(params)
    take = optimizer.step_rows(params, grad, state, rates, layout)
    for step in range(2):
        for row, scale in enumerate(scales):
            grad[row] = scale * normal(layout.size, seed=10 + step)
            optimizer.step(alone[row], grad[row].clone(), states[row], float(rates[step, row]), layout)
        take(step)
    torch.testing.assert_close(params, alone, rtol=1e-12, atol=1e-12)


# Options and runs


@pytest.mark.parametrize("key", ["lr", "weight_decay"])
def test_rates_and_decays_are_numbers_up_to_1e30(key: str) -> None:
    for value in (-1.0, 1e31, float("nan")):
        with pytest.raises(ConfigError, match=f"^{key}: "):
            Muon(**{key: value})


def test_the_names_that_are_muons_are_those_of_the_model_itself() -> None:
    """In a run, by what it keeps of a worker: so many numbers of momentum, and twice as many of others."""
    sections = tiny(train={"optimizer": {"name": "muon"}}, budget={"local_steps": 4})
    sections["model"] = {"name": "gpt_neox", "hidden_size": 8, "layers": 2, "heads": 2, "wire_bytes": 1000}
    executor: Any = record(sections, list(PLUGIN)).config.executor
    kept = executor.inner_state(0)["optimizer"]
    assert len(kept["momentum"]) == 2 * (24 * 8 + 8 * 8 + 32 * 8 + 8 * 32)
    assert float(kept["step"]) == 2.0


def test_a_run_with_muon_inside_diloco_learns() -> None:
    """The loss of a tiny transformer falls."""
    sections = tiny(
        steps={"base": 8},
        budget={"local_steps": 8 * 2 * 8},
        train={"optimizer": {**MULOCO, "lr": 0.02, "scale": "none"}, "batch_size": 4, "clip": 1.0},
        policy={"outer": {"name": "nesterov", "lr": 0.9, "momentum": 0.8}},
    )
    sections["model"] = {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2, "wire_bytes": 1000}
    sections["data"] = {"name": "synthetic", "samples": 512, "sequence_length": 12, "validation_samples": 16}
    losses = [update.loss for update in record(sections, list(PLUGIN)).updates]
    assert losses[0] is not None and losses[-1] is not None and losses[-1] < losses[0] - 0.2
