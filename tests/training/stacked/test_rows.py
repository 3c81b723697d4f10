"""Rows of matrices, and workers' states from and to them."""

from __future__ import annotations

import torch

from halos.training.options import OptimizerOptions, TrainOptions
from halos.training.stacked.rows import Moments, Rows, give, moments_in
from halos.training.trainer import Trainer
from halos.values.params import Layout

LAYOUT = Layout({"bias": (2,), "weight": (2, 3)})  # the matrix comes first: weight 0 to 5, bias 6 and 7
CPU = torch.device("cpu")


def test_rows_have_names_and_share_memory_with_them() -> None:
    rows = Rows(3, LAYOUT, [], CPU)
    rows.put(1, torch.arange(8.0), Moments({}, 0.0))
    named = rows.named(rows.params, 2)
    assert named["weight"].shape == (2, 2, 3) and named["weight"][1].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    named["bias"][0] = 7.0
    assert rows.params.tolist() == [[0.0] * 6 + [7.0, 7.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [0.0] * 8]


def test_every_row_begins_at_a_multiple_of_64_bytes() -> None:
    rows = Rows(2, LAYOUT, ["m"], CPU)
    for matrix in (rows.params, rows.grad, rows.moments["m"]):
        assert matrix.shape == (2, 8) and matrix.stride() == (16, 1)


def test_moments_are_zero_before_the_first_step_and_a_copy_when_taken() -> None:
    rows = Rows(1, LAYOUT, ["m"], CPU)
    rows.put(0, torch.zeros(8), Moments({"m": torch.ones(8)}, 3.0))
    taken = rows.take(0, 5.0)
    rows.put(0, torch.zeros(8), Moments({}, 0.0))
    assert rows.moments["m"].tolist() == [[0.0] * 8]
    assert taken.vectors["m"].tolist() == [1.0] * 8 and taken.steps == 5.0


def test_a_state_is_what_torchs_optimizer_goes_on_from() -> None:
    trainer = Trainer(torch.nn.Linear(3, 2), TrainOptions(optimizer=OptimizerOptions(lr=0.1)), CPU)
    state = trainer.states.of(0)
    names = ["exp_avg", "exp_avg_sq"]
    assert moments_in(None, names) == moments_in(state, names) == Moments({}, 0.0)
    give(Moments({"exp_avg": torch.arange(8.0), "exp_avg_sq": torch.arange(8.0) ** 2}, 4.0), state, counted=True)
    found = moments_in(state, names)
    assert found.steps == 4.0 and found.vectors["exp_avg_sq"].tolist() == [i * i for i in range(8)]
    # β = (0.9, 0.95): v̂ = v / (1 − 0.95⁴), 5.3913… times as large
    second = trainer.second_moments(0)
    assert second is not None and second.flat is not None
    torch.testing.assert_close(second.flat, torch.arange(8.0) ** 2 / 0.18549375, rtol=1e-6, atol=0.0)
    state.optimizer.step()  # with gradients of zero
    assert float(state.optimizer.state_dict()["state"][0]["step"]) == 5.0
