"""Rows of matrices, and what an optimizer keeps of each."""

from __future__ import annotations

import torch

from halos.training.optimizers import AdamW
from halos.training.stacked.rows import Rows
from halos.values.params import Layout

LAYOUT = Layout({"bias": (2,), "weight": (2, 3)})  # the matrix comes first: weight 0 to 5, bias 6 and 7
CPU = torch.device("cpu")
LIKE = AdamW().init(LAYOUT, torch.device("meta"))


def test_rows_have_names_and_share_memory_with_them() -> None:
    rows = Rows(3, LAYOUT, {}, CPU)
    rows.put(1, torch.arange(8.0), {})
    named = rows.named(rows.params, 2)
    assert named["weight"].shape == (2, 2, 3) and named["weight"][1].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    named["bias"][0] = 7.0
    assert rows.params.tolist() == [[0.0] * 6 + [7.0, 7.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [0.0] * 8]


def test_every_row_begins_at_a_multiple_of_64_bytes() -> None:
    rows = Rows(2, LAYOUT, {**LIKE, "anchor": torch.zeros(17)}, CPU)
    for matrix in (rows.params, rows.grad, rows.moments["exp_avg"]):
        assert matrix.shape == (2, 8) and matrix.stride() == (16, 1)
    assert rows.moments["anchor"].shape == (2, 17) and rows.moments["anchor"].stride() == (32, 1)
    assert rows.moments["step"].shape == (2,)


def test_moments_of_a_row_are_seen_where_they_lie_and_copied_when_taken() -> None:
    rows = Rows(2, LAYOUT, LIKE, CPU)
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.arange(8.0), "exp_avg_sq": torch.ones(8)}
    rows.put(1, torch.zeros(8), moments)
    taken = rows.take(1)
    rows.of(1)["step"].add_(2.0)
    rows.first(2)["exp_avg"][1] = 0.0
    assert rows.moments["step"].tolist() == [0.0, 5.0] and rows.moments["exp_avg"].tolist() == [[0.0] * 8] * 2
    assert {name: tensor.tolist() for name, tensor in taken.items()} == {
        "step": 3.0, "exp_avg": list(range(8)), "exp_avg_sq": [1.0] * 8,
    }  # fmt: skip
