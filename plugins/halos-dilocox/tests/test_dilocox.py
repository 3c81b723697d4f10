"""DiLoCoX: rounds with a rounding written out in plain numbers, what it is made of, bytes and times."""

from __future__ import annotations

from typing import Any

import pytest
from halos_codecs import Int4, LowRank
from halos_dilocox import DiLoCoX

from halos import Nesterov
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_codecs", "halos_one_step_delay", "halos_dilocox"]
LR, MU = 0.2, 0.5
OUTER = {"name": "nesterov", "lr": LR, "momentum": MU}
FOUR_BITS = {"name": "int4", "block": None, "error_feedback": True}
OPTIMUM = (1.0, 0.3)


class TestConformance(PolicyConformance):
    plugins = ("halos_codecs", "halos_dilocox")
    sections = ({"name": "dilocox", "outer": {"lr": 0.2, "momentum": 0.5}, "codec": FOUR_BITS},)


def run(policy: dict[str, Any], rounds: int = 5, **changes: Any) -> Recording:
    """Two workers of 1 and 2 steps a round on a quadratic with its optimum at (1, 0.3), from 0."""
    sections = tiny(
        model={"dtype": "float64", "size": 2, "optimum": list(OPTIMUM)},
        cluster={"regions": [{"workers": [1.0, 0.5]}]},
        steps={"name": "by_speed", "base": 2},
        policy=policy,
        budget={"local_steps": 3 * rounds},
    )
    return record(sections | changes, PLUGIN)


def thetas(recording: Recording) -> list[list[float]]:
    return [commit.params.flat.tolist() for commit in recording.global_commits]  # type: ignore[union-attr]


def in_four_bits(vector: list[float]) -> list[float]:
    scale = max(abs(each) for each in vector) / 7
    return [round(each / scale) * scale for each in vector]


def test_rounds_with_error_feedback_by_hand() -> None:
    """Δ_m = (1 − 0.9^steps) (θ − θ*), coded with what was left of it before, averaged, and applied a round later."""
    models, residuals = [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]  # no outer step in round 1
    velocity, expected = [0.0, 0.0], []
    for r in range(5):
        sent = []
        for m, shrink in enumerate((0.19, 0.1)):
            whole = [shrink * (models[r][i] - OPTIMUM[i]) + residuals[m][i] for i in range(2)]
            sent.append(in_four_bits(whole))
            residuals[m] = [whole[i] - sent[m][i] for i in range(2)]
        mean = [(sent[0][i] + sent[1][i]) / 2 for i in range(2)]
        velocity = [MU * velocity[i] + mean[i] for i in range(2)]
        models.append([models[-1][i] - LR * (mean[i] + MU * velocity[i]) for i in range(2)])
        expected.append(models[-1])
    # The first in full: Δ = −(.19, .057) and −(.1, .03); .057 / .19 · 7 = 2.1 becomes 2, so that −(.19, .0542857) and
    # −(.1, .0285714) arrive, in the mean −(.145, .0414286); v is the same; θ = .2 · 1.5 · (.145, .0414286).
    assert expected[0] == pytest.approx([0.0435, 0.3 * 0.145 * 2 / 7])
    # The second: Δ is the same again, with −(0, .0027143) and −(0, .0014286) left over 2.2, still 2. So the same
    # arrives; v = −1.5 of it; θ = (.0435, .0124286) + .2 · 1.75 · (.145, .0414286).
    assert expected[1] == pytest.approx([0.09425, 0.65 * 0.145 * 2 / 7])
    ours = thetas(run({"name": "dilocox", "outer": OUTER, "codec": FOUR_BITS}))
    assert ours == [pytest.approx(each, rel=1e-6) for each in expected]  # scales are fp32


def test_error_feedback_moves_what_is_always_rounded_away() -> None:
    """A steady slope of about 1, and beside it one of 0.05 at most, which is .35 sevenths of it: nothing."""
    slopes = {"name": "quadratic", "dtype": "float64", "size": 2, "curvature": [0.01, 1.0], "optimum": [100.0, 0.05]}
    fed, not_fed = (
        thetas(
            run({"name": "dilocox", "outer": OUTER, "codec": {**FOUR_BITS, "error_feedback": back}}, 100, model=slopes)
        )
        for back in (True, False)
    )
    assert not_fed[-1][1] == 0.0
    late = [theta[1] for theta in fed[50:]]  # in jumps of up to a seventh of .145 · .4
    assert sum(late) / len(late) == pytest.approx(0.05, abs=0.005)


def test_with_payloads_in_fp32_it_is_one_step_delay() -> None:
    codec = {"name": "fp32"}
    ours = run({"name": "dilocox", "outer": OUTER, "codec": codec})
    theirs = run({"name": "one_step_delay", "outer": OUTER})
    assert thetas(ours) == thetas(theirs)
    assert ours.transfers == theirs.transfers


def test_it_is_one_step_delay_of_a_run_with_its_codec() -> None:
    codec = {"name": "low_rank", "rank": 16, "factors": {"name": "int4"}, "error_feedback": True}
    model = {"name": "gpt_neox", "hidden_size": 64, "layers": 1, "heads": 2}
    same: dict[str, Any] = {"model": model, "network": {"bandwidth_gbps": 0.001}, "budget": {"local_steps": 9}}
    ours = run({"name": "dilocox"}, **same)
    theirs = run({"name": "one_step_delay"}, codec=codec, **same)
    assert thetas(ours) == thetas(theirs)
    assert ours.transfers == theirs.transfers


def test_its_defaults() -> None:
    policy = run({"name": "dilocox"}, rounds=1).config.policy
    codec = LowRank(rank=16, factors=Int4(), error_feedback=True)
    assert policy == DiLoCoX(outer=Nesterov(lr=0.4, momentum=0.9), outer_delay=1, codec=codec)


def test_times_and_bytes_of_factors_in_four_bits() -> None:
    """Everybody's factors are passed on to everybody, while the next round trains."""
    workers, rounds = 4, 3
    recording = run(
        {"name": "dilocox", "codec": {"name": "low_rank", "rank": 2, "factors": "int4"}},
        model={"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 64},
        executor={"name": "timing"},
        cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
        steps={"name": "fixed", "base": 2},
        network={"bandwidth_gbps": 8e-6},  # 1000 bytes a second
        budget={"local_steps": 2 * workers * rounds},
    )
    # Matrices: embedding and head [64, 16], query-key-value [48, 16], attention's output [16, 16], MLP [64, 16] and
    # [16, 64]. Two columns of n numbers in four bits are n bytes, and a block or less is one scale of 4.
    matrices = [(64, 16), (64, 16), (48, 16), (16, 16), (64, 16), (16, 64)]
    factors = sum(4 + (n + 4) + (m + 4) for n, m in matrices)
    # Three layer norms of weight and bias, and the four matrices' biases; in fp32.
    vectors = 4 * (3 * 2 * 16 + 48 + 16 + 64 + 16)
    nbytes = factors + vectors
    assert nbytes == 488 + 960
    a, c = (workers - 1) * nbytes / 1000, 2.0
    assert [each.bytes for each in recording.transfers] == [workers * (workers - 1) * nbytes] * rounds
    assert recording.simulation.now == pytest.approx(rounds * max(a, c) + min(a, c))


def test_it_trains() -> None:
    recording = run(
        {"name": "dilocox", "codec": {"name": "low_rank", "rank": 4, "factors": "int4", "error_feedback": True}},
        model={"name": "gpt_neox", "hidden_size": 32, "layers": 1, "heads": 2},
        train={"batch_size": 8, "optimizer": {"name": "adamw", "lr": 0.005}, "schedule": {"name": "constant"}},
        steps={"name": "fixed", "base": 8},
        budget={"local_steps": 16 * 12},
        data={"name": "synthetic", "samples": 2048, "sequence_length": 16, "validation_samples": 32},
    )
    first, last = recording.evaluations[0].loss, recording.evaluations[-1].loss
    assert last < first - 0.3
