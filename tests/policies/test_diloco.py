"""DiLoCo by hand."""

from __future__ import annotations

from halos.testing import record, tiny
from tests.policies.speeds import speeds


def test_diloco_by_hand() -> None:
    """Two workers at θ = 0, optimum 1, lr ½, two steps: each ends at ¾, Δ = −¾; Nesterov(½, ½)."""
    sections = tiny(
        train={"optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 0.0}},
        policy={"name": "diloco", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}},
        model={"dtype": "float64"},
    )
    run = record(sections)
    # v = −¾, θ = ½ (¾ + ½ ¾) = 9/16. Then Δ = −¾ · 7/16 = −21/64, v = −3/8 − 21/64 = −45/64,
    # θ = 9/16 + ½ (21/64 + 45/128) = 9/16 + 87/256 = 231/256.
    assert [commit.params.flat.tolist() for commit in run.commits] == [[9 / 16] * 2, [231 / 256] * 2]  # type: ignore[union-attr]


def test_a_round_lasts_as_long_as_its_slowest_worker() -> None:
    run = record(tiny(cluster=speeds([4, 1]), budget={"local_steps": 12}, executor={"name": "timing"}))
    assert [commit.time for commit in run.commits] == [8.0, 16.0, 24.0]
