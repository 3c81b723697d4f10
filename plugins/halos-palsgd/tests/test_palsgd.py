"""PALSGD: steps by hand, DiLoCo without pulls, and what pulls save."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from halos import UserError
from halos.testing import Recording, record, tiny
from halos.testing.conformance import PolicyConformance
from halos.testing.resuming import problem
from halos.testing.situations import SITUATIONS, Situation
from halos.testing.witness import everything, first_difference

PLUGIN = ["halos_palsgd"]
AVERAGE = {"name": "sgd", "lr": 1.0}
SEED = 2  # of whose first three coins the second is a pull


def run(rounds: int = 4, base: int = 8, workers: int = 3, policy: Any = None, **changes: Any) -> Recording:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
        model={"name": "quadratic", "size": 4, "noise": 0.5, "dtype": "float64"},
        data={"samples": 4096, "validation_samples": 1},
        steps={"base": base},
        policy={"name": "palsgd", **(policy or {})},
        budget={"local_steps": rounds * base * workers},
    )
    return record(sections | changes, PLUGIN)


def test_three_steps_by_hand() -> None:
    """Seed 2 has gradient, pull, gradient. From 0 towards 1 at .1; a pull goes .1 · .8 / .2 = .4 of the way back."""
    one = {"model": {"name": "quadratic", "size": 1, "dtype": "float64"}}
    recording = run(1, 3, 1, {"outer": AVERAGE, "seed": SEED, "probability": 0.2}, **one)
    first, second = recording.updates
    assert [(each.steps, each.lr_step) for each in recording.updates] == [(1, 0), (1, 2)]
    assert first.params.flat is not None and first.params.flat.tolist() == pytest.approx([0.1])
    assert second.start.flat is not None and second.start.flat.tolist() == pytest.approx([0.06])
    assert recording.thetas == pytest.approx([0.06 + 0.1 * 0.94])
    assert recording.simulation.now == 2.0  # a pull takes no time
    half = run(1, 3, 1, {"outer": AVERAGE, "seed": SEED, "pull": 0.5}, **one)
    assert half.thetas == pytest.approx([0.08 + 0.1 * 0.92])
    beyond = run(1, 3, 1, {"outer": AVERAGE, "seed": SEED, "pull": 100.0}, **one)
    assert beyond.thetas == pytest.approx([0.1])  # back where it began


def test_pulls_are_as_strong_as_the_schedule_says_at_their_place() -> None:
    """Rates .05, .1, .15 of a warm-up over three steps to .15: the pull is the second step."""
    train = {**tiny()["train"], "optimizer": {"name": "sgd", "lr": 0.15, "weight_decay": 0.0}}
    train["schedule"] = {"name": "warmup_cosine", "warmup": 3, "total": 100}
    one = {"model": {"name": "quadratic", "size": 1, "dtype": "float64"}, "train": train}
    x = 0.05 * (1 - 0.1 * 0.8 / 0.2)
    assert run(1, 3, 1, {"outer": AVERAGE, "seed": SEED}, **one).thetas == pytest.approx([x + 0.15 * (1 - x)])


def test_without_pulls_it_is_diloco_bit_for_bit() -> None:
    outer = {"name": "nesterov", "lr": 0.3, "momentum": 0.5}
    ours = run(policy={"probability": 0.0, "outer": outer})
    theirs = run(policy={"name": "diloco", "outer": outer})
    assert len(theirs.global_commits) == 4
    assert first_difference(everything(ours), everything(theirs)) is None


def test_time_and_batches_are_those_of_gradient_steps_alone() -> None:
    """Of 40 rounds of 16 steps a fifth are pulls: 128 of 640, with a standard deviation of 10.1."""
    recording = run(40, 16, 1, {"probability": 0.2})
    report: Any = recording.config.policy.report()  # type: ignore[attr-defined]
    pulls = report["pulls"]
    assert pulls == pytest.approx(128, abs=4 * 10.1)
    assert recording.simulation.now == 640 - pulls
    assert sum(update.steps for update in recording.updates) == recording.simulation.ledger.committed == 640 - pulls
    assert max(update.samples[1] for update in recording.updates) == 640 - pulls  # each batch is used


def test_every_worker_has_its_own_coins_and_a_round_takes_the_one_with_most_gradient_steps() -> None:
    recording = run(6, 10, 3, {"probability": 0.5})
    steps: dict[tuple[float, int], int] = {}
    begins = [0.0, *[commit.time for commit in recording.global_commits]]
    for update in recording.updates:
        key = max(begin for begin in begins if begin <= update.start_time), update.worker
        steps[key] = steps.get(key, 0) + update.steps
    rounds = [[steps.get((begin, worker), 0) for worker in range(3)] for begin in begins[:-1]]
    assert any(len({*each}) > 1 for each in rounds)
    lengths = [after - before for before, after in pairwise(begins)]
    assert lengths == [max(each) for each in rounds]


def test_unequal_steps_are_refused() -> None:
    unequal = {"steps": {"name": "by_speed", "base": 2}, "cluster": {"regions": [{"workers": [1.0, 0.5]}]}}
    with pytest.raises(UserError, match=r"^policy: workers take 1 to 2 local steps; palsgd needs the same for all"):
        record(tiny(policy={"name": "palsgd"}, **unequal), PLUGIN)


FAULTS: dict[str, Any] = {
    "a crash": {"name": "crashes", "at": [{"worker": 1, "at_seconds": 2.5, "seconds": 1.5}]},
    "one for ever": {"name": "crashes", "at": [{"worker": 2, "at_seconds": 9.5}]},
    "a lost message": {"name": "message_loss", "probability": 0.2, "detection_seconds": 0.5},
    "everybody": {"name": "crashes", "at": [{"worker": w, "at_seconds": 8.5, "seconds": 5.0} for w in range(3)]},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_it_goes_on_under_faults_and_resumes_exactly(kind: str) -> None:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [1.0]}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1e-6},
        model={"name": "quadratic", "size": 4, "noise": 0.5, "dtype": "float64", "wire_bytes": 100},
        data={"samples": 4096, "validation_samples": 1},
        steps={"base": 4},
        policy={"name": "palsgd", "probability": 0.3},
        budget={"local_steps": 96},
        faults=FAULTS[kind],
    )
    recording = record(sections, PLUGIN)
    ledger = recording.simulation.ledger
    assert ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight
    assert ledger.in_flight == 0 and ledger.committed > 40
    assert sum(recording.simulation.faults.lost().values()) > 0
    assert problem(sections, PLUGIN, cuts=2) is None


class TestConformance(PolicyConformance):
    plugins = ("halos_palsgd",)
    sections = (
        {"name": "palsgd", "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.5}},
        {"name": "palsgd", "probability": 0.0, "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.5}},
    )

    def least_steps(self, section: dict[str, Any]) -> int:
        return 4

    @pytest.mark.parametrize("situation", SITUATIONS, ids=str)
    def test_spends_the_budget(self, section: dict[str, Any], situation: Situation) -> None:
        """Gradient steps and pulls make up the budget."""
        recording = self.observe(section, situation).recording
        report: Any = recording.config.policy.report()  # type: ignore[attr-defined]
        assert recording.simulation.ledger.committed + report["pulls"] == recording.config.budget.local_steps
