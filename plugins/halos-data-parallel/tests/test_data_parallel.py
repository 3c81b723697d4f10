"""Data-parallel training: the steps of one worker with the joint batch, and the time of a collective for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos import Inline, UserError
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_data_parallel"]
NETWORK = {"name": "gpt_neox", "hidden_size": 16, "layers": 2, "heads": 2}
BOWL = {"name": "quadratic", "size": 5, "noise": 0.5, "dtype": "float64", "curvature": [1, 2, 3, 4, 5]}
TRAIN: dict[str, Any] = {
    "batch_size": 2,
    "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.1, "eps": 1e-4},  # the keys' biases have no gradient
    "schedule": {"name": "warmup_cosine", "warmup": 4, "total": 10},
    "clip": 0.3,
}
WORKERS, STEPS = 3, 12


class TestConformance(PolicyConformance):
    plugins = PLUGIN

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        """Steps of a second each: as many all-reduces as seconds computed."""
        return rounds * compute * (1 + all_reduce)


def several(model: dict[str, Any], **changes: Any) -> Recording:
    """Three workers, two samples each."""
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * WORKERS}]},
        model=model,
        train=TRAIN,
        policy={"name": "data_parallel"},
        steps={"base": 5},  # which plays no part
        budget={"local_steps": STEPS * WORKERS},
        evaluate={"every_local_steps": WORKERS},
    )
    return record(sections | changes, PLUGIN)


def alone(model: dict[str, Any], train: dict[str, Any]) -> Recording:
    """One worker with all six samples, whose outer step only takes over what it has trained."""
    return record(
        tiny(
            cluster={"regions": [{"workers": [1.0]}]},
            model=model,
            train={**train, "batch_size": 2 * WORKERS},
            steps={"base": 1},
            budget={"local_steps": STEPS},
        )
    )


def models(recording: Recording) -> list[torch.Tensor]:
    return [commit.params.flat for commit in recording.global_commits if commit.params.flat is not None]


@pytest.mark.parametrize(
    "train",
    [
        TRAIN,
        {**TRAIN, "micro_batch_size": 1},
        {**TRAIN, "clip": 0.0},
        {**TRAIN, "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}},
    ],
    ids=["as it is", "gradient accumulation", "no clipping", "sgd"],
)
@pytest.mark.parametrize(("model", "tolerance"), [(NETWORK, 1e-6), (BOWL, 1e-12)], ids=["network", "bowl"])
def test_it_is_one_worker_with_the_joint_batch(model: dict[str, Any], train: dict[str, Any], tolerance: float) -> None:
    ours, theirs = several(model, train=train), alone(model, train)
    assert len(models(ours)) == len(models(theirs)) == STEPS
    for mine, other in zip(models(ours), models(theirs)):
        assert float((mine - other).norm() / other.norm()) < tolerance
    for step, update in enumerate(theirs.updates):  # the loss of the joint batch is the mean of its parts'
        parts = ours.updates[WORKERS * step : WORKERS * (step + 1)]
        assert sum(each.losses[0] for each in parts) / WORKERS == pytest.approx(update.losses[0], rel=1e-5)
        assert parts[0].samples[0] == update.samples[0] == 6 * step
        assert parts[-1].samples[1] == update.samples[1] == 6 * (step + 1)
        assert {each.lr_step for each in parts} == {update.lr_step} == {step}


@pytest.mark.parametrize("model", [NETWORK, BOWL], ids=["network", "bowl"])
def test_the_mean_is_clipped_and_not_the_parts(model: dict[str, Any]) -> None:
    recording = several(model)
    longer = [each.gradient for each in recording.updates if each.gradient is not None]
    assert max(each.norm() for each in longer) > 2 * TRAIN["clip"]
    unclipped = several(model, train={**TRAIN, "clip": 0.0})
    assert not torch.allclose(models(recording)[-1], models(unclipped)[-1], rtol=1e-3)


def test_adamw_by_hand() -> None:
    """½ (θ − 1)² from 0, without decay or noise: the gradient is −1, then −0.9, whoever computes it."""
    recording = several(
        {"name": "quadratic", "size": 1, "dtype": "float64"},
        train={
            "optimizer": {"name": "adamw", "lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8},
            "schedule": {"name": "constant"},
            "clip": 0.0,
        },
        budget={"local_steps": 2 * WORKERS},
    )
    # m = −.1 and v = .01, corrected −1 and 1: a step of .1. Then m = −.09 − .09 = −.18, v = .0099 + .0081 = .018,
    # corrected by 1 − .81 and 1 − .9801.
    second = 0.1 + 0.1 * (0.18 / 0.19) / (0.018 / 0.0199) ** 0.5
    assert recording.thetas == [pytest.approx(0.1, abs=1e-8), pytest.approx(second, abs=1e-8)]


def test_every_step_takes_the_slowest_workers_time_and_an_all_reduce() -> None:
    recording = several(
        BOWL | {"wire_bytes": 3_000_000},
        cluster={"regions": [{"workers": [1.0, 0.5]}, {"workers": [0.25]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 0.008},  # a megabyte a second
        budget={"local_steps": 6 * WORKERS},
    )
    # The slowest takes 4 s a step; of 3 MB, 2 · 2/3 take 4 s; four links' worth of them are carried in all.
    assert [commit.time for commit in recording.global_commits] == pytest.approx([8.0 * (i + 1) for i in range(6)])
    assert [each.bytes for each in recording.transfers] == [4 * 3_000_000] * 6
    assert [each.time - each.start_time for each in recording.updates[:3]] == [1.0, 2.0, 4.0]
    shares = [share for each in recording.global_commits for share in each.shares]
    assert all(share.hop_drift == 0.0 and share.hop_staleness == 0 for share in shares)


def test_a_local_step_of_every_worker_is_a_step_of_the_budget() -> None:
    recording = several(BOWL, budget={"local_steps": 10})
    assert len(recording.global_commits) == 4  # three steps each, the fourth time crosses it
    ledger = recording.simulation.ledger
    assert (ledger.trained, ledger.committed, ledger.in_flight) == (12, 12, 0)


def test_gradients_pass_the_codec() -> None:
    """A gradient of −1 − 2⁻¹² is −1 in half precision, to the nearest of the numbers 2⁻¹⁰ apart."""
    recording = several(
        {"name": "quadratic", "size": 1, "optimum": 1 + 2**-12, "dtype": "float64"},
        train={"optimizer": {"name": "sgd", "lr": 0.5}, "schedule": {"name": "constant"}, "clip": 0.0},
        codec="fp16",
        budget={"local_steps": WORKERS},
    )
    assert recording.thetas == [0.5]


def test_an_executor_that_computes_no_gradients_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Inline, "step")
    with pytest.raises(UserError, match="executor: this one computes no gradients"):
        several(BOWL)


def test_everybody_waits_for_a_worker_that_is_down_and_computes_its_gradient_again() -> None:
    """Steps of 1 s. Worker 1 is down from 2.5 to 7 s: the third step ends at 8 s, and nothing of it is missing."""
    down = {"name": "crashes", "at": [{"worker": 1, "at_seconds": 2.5, "seconds": 4.5}]}
    cluster = {"regions": [{"workers": [1.0] * WORKERS}], "step_time_ms": 1000.0}
    changes = {"cluster": cluster, "budget": {"local_steps": 4 * WORKERS}}
    recording = several(BOWL, faults=down, **changes)
    assert [commit.time for commit in recording.global_commits] == [1.0, 2.0, 8.0, 9.0]
    assert [len(commit.shares) for commit in recording.global_commits] == [WORKERS] * 4
    ledger = recording.simulation.ledger
    assert (ledger.committed, ledger.dropped, ledger.lost) == (4 * WORKERS, 0, 1)
    again = several(BOWL, faults={**down, "samples": "again"}, **changes)  # the lost batch, dealt once more
    assert [each.lr_step for each in again.updates] == [i // WORKERS for i in range(4 * WORKERS)]


def test_a_gradient_whose_worker_crashes_before_the_others_have_theirs_is_computed_again() -> None:
    """Worker 0 takes 1 s, the others 4 s; it is down from 2 to 3 s, so at 4 s it begins anew: committed at 5 s."""
    down = {"name": "crashes", "at": [{"worker": 0, "at_seconds": 2.0, "seconds": 1.0}]}
    cluster = {"regions": [{"workers": [1.0, *[0.25] * (WORKERS - 1)]}], "step_time_ms": 1000.0}
    recording = several(BOWL, faults=down, cluster=cluster, budget={"local_steps": 2 * WORKERS})
    assert [commit.time for commit in recording.global_commits] == [5.0, 9.0]
    assert [len(commit.shares) for commit in recording.global_commits] == [WORKERS] * 2
    assert recording.simulation.ledger.dropped == 1
