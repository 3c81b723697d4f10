"""The shape of RoDiLoCo's table in training that takes seconds: who survives how many workers of eight that lie."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from halos.testing import record, tiny

pytestmark = pytest.mark.long
ROUNDS = 10


@cache
def losses(name: str, bad: int, **options: Any) -> tuple[float, float]:
    """The validation loss of a small transformer before and after ten rounds, of which so many workers lie in each."""
    run = record(
        tiny(
            cluster={"regions": [{"workers": [1.0] * 8}]},
            model={"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2},
            data={"name": "synthetic", "samples": 4096, "sequence_length": 16, "validation_samples": 256},
            train={
                "batch_size": 4,
                "optimizer": {"name": "adamw", "lr": 3.0e-3},
                "schedule": {"name": "constant"},
                "clip": 1.0,
            },
            steps={"name": "fixed", "base": 8},
            policy={"name": "diloco", "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.9}},
            budget={"local_steps": 8 * 8 * ROUNDS},
            executor={"name": "stacked"},
            aggregate={"name": name, **options},
            faults={"name": "byzantine", "count": bad},
        )
    )
    return run.evaluations[0].loss, run.evaluations[-1].loss


def test_the_mean_is_led_astray_by_one() -> None:
    before, honest = losses("mean", 0)
    assert honest < before - 2.0
    for bad in (1, 2):
        assert losses("mean", bad)[1] > before + 1.0, "worse than it began"


def test_a_trimmed_mean_survives_as_many_as_it_trims() -> None:
    before, honest = losses("mean", 0)
    for bad in (0, 1):
        assert losses("trimmed_mean", bad, b=1)[1] == pytest.approx(honest, abs=0.1)
        assert losses("trimmed_mean", bad, b=2)[1] == pytest.approx(honest, abs=0.1)
    assert losses("trimmed_mean", 2, b=1)[1] > before + 1.0
    assert losses("trimmed_mean", 2, b=2)[1] == pytest.approx(honest, abs=0.2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("median", {}),
        ("krum", {"f": 2}),
        ("multi_krum", {"f": 2}),
        ("geometric_median", {}),
        ("centred_clipping", {}),
        ("trust", {}),
    ],
)
def test_robust_rules_survive_two_of_eight(name: str, options: dict[str, Any]) -> None:
    _, honest = losses("mean", 0)
    for bad in (0, 2):
        assert losses(name, bad, **options)[1] < honest + 0.25, bad
