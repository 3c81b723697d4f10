"""Decoupled DiLoCo: averages, quorums, grace windows and crashes by hand; Streaming DiLoCo as a special case."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from halos_decoupled_diloco.averaging import average

from halos import Layout, Params, UserError
from halos.testing import Recording, main, record, tiny
from halos.testing.conformance import PolicyConformance
from halos.testing.resuming import problem

PLUGIN = ["halos_decoupled_diloco"]
SGD = {"name": "sgd", "lr": 1.0}  # with plain averaging: Θ_p becomes the mean of the learners'
ALONE = {"model": {"name": "quadratic", "size": 1, "dtype": "float64"}}
NOISY = {"name": "quadratic", "size": 6, "noise": 0.3, "dtype": "float64"}


def run(policy: dict[str, Any], period: int, rounds: int, speeds: list[float], **changes: Any) -> Recording:
    """`rounds` periods of `period` steps, 1 s each at speed 1; one fragment, plain averaging unless said otherwise."""
    section = {"name": "decoupled_diloco", "fragments": 1, "averaging": "mean", "outer": SGD, **policy}
    sections = tiny(
        cluster={"regions": [{"workers": speeds}], "step_time_ms": 1000.0},
        data={"samples": 4096},
        steps={"base": period},
        budget={"local_steps": len(speeds) * period * rounds},
    )
    return record(sections | {"policy": section} | changes, PLUGIN)


def contributors(recording: Recording) -> list[tuple[float, list[int]]]:
    """When the global model changed, and whose local steps that counted, each worker once."""
    return [
        (commit.time, sorted({update.worker for share in commit.shares for update in share.updates}))
        for commit in recording.global_commits
    ]


def waits(recording: Recording) -> list[tuple[int, float, float]]:
    """(worker, from, to) of all pauses between two jobs of a worker."""
    pauses, last = [], {}
    for update in recording.updates:
        if update.start_time > last.get(update.worker, update.start_time):
            pauses.append((update.worker, last[update.worker], update.start_time))
        last[update.worker] = update.time
    return pauses


# Averages.


def averaged(
    vectors: list[list[float]],
    weights: list[float],
    averaging: str = "radial_directional",
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> list[float]:
    layout = Layout(shapes or {"w": (len(vectors[0]),)}, torch.float64)
    several = [Params(layout, torch.tensor(vector, dtype=torch.float64)) for vector in vectors]
    before = [list(vector) for vector in vectors]
    result = average(several, weights, averaging, ["embed"])
    assert [each.flat.tolist() for each in several if each.flat is not None] == before  # parameters are values
    assert result.flat is not None
    return [float(each) for each in result.flat]


def test_radial_directional_is_the_mean_norm_times_the_mean_direction() -> None:
    # Norms 5 and 5, unit vectors (.6, .8) and (0, 1), their mean (.3, .9), of length √.9.
    assert averaged([[3, 4], [0, 5]], [1, 1]) == pytest.approx([1.5 / math.sqrt(0.9), 4.5 / math.sqrt(0.9)])
    # Weights 3 : 1. Mean norm (3 · 2 + 6) / 4 = 3, direction (3, 1) / √10.
    assert averaged([[2, 0], [0, 6]], [3, 1]) == pytest.approx([9 / math.sqrt(10), 3 / math.sqrt(10)])
    assert averaged([[2, 0], [0, 6]], [3, 1], "mean") == pytest.approx([1.5, 1.5])


def test_orthogonal_differences_keep_their_length() -> None:
    """Plain averaging of M orthogonal vectors of norm 1 leaves 1 / √M of it."""
    one_hot = [[float(i == j) for i in range(4)] for j in range(4)]
    assert averaged(one_hot, [1.0] * 4) == pytest.approx([0.5] * 4)  # norm 1
    assert averaged(one_hot, [1.0] * 4, "mean") == pytest.approx([0.25] * 4)  # norm ½


def test_every_tensor_is_averaged_by_itself_and_embeddings_plainly() -> None:
    shapes = {"embed_in.weight": (2, 1), "layers.0.weight": (2, 1), "norm": (1,)}
    # layers: (2, 0) and (0, 6): norms 4 on average, direction (1, 1) / √2. norm: 1 and 3: 2.
    result = averaged([[3, 0, 2, 0, 1], [0, 5, 0, 6, 3]], [1, 1], shapes=shapes)
    assert result == pytest.approx([1.5, 2.5, 4 / math.sqrt(2), 4 / math.sqrt(2), 2])


def test_a_zero_vector_has_a_norm_but_no_direction() -> None:
    assert averaged([[0, 0], [0, 6]], [1, 1]) == pytest.approx([0, 3])
    assert averaged([[0, 0], [0, 0]], [1, 1]) == [0, 0]
    assert averaged([[1, 0], [-1, 0]], [1, 1]) == [0, 0]  # nowhere in particular
    rounded = [0.1, 0.3], [-0.3, -0.9]  # likewise, but their unit vectors' sum is 1e-17 or so
    assert sum(each / math.hypot(*vector) for vector in rounded for each in vector) != 0.0
    assert averaged([list(vector) for vector in rounded], [1, 1]) == [0, 0]


def test_of_one_or_of_equal_differences_it_is_the_mean() -> None:
    """Norm and direction apart are the vector again, whatever the weights."""
    vector = [0.3, -1.2, 5.0, 0.0]
    assert averaged([vector], [7.0]) == pytest.approx(vector, rel=1e-14)
    assert averaged([vector] * 3, [1.0, 2.0, 5.0]) == pytest.approx(vector, rel=1e-14)


def test_hollow_differences_have_a_hollow_average() -> None:
    layout = Layout({"w": (3,)})
    result = average([Params(layout, None), Params(layout, None)], [1, 2], "radial_directional", [])
    assert result.hollow
    assert result.size == 3


@pytest.mark.parametrize(
    ("weights", "expected"), [("tokens", (4 * 0.3439 + 2 * 0.19) / 6), ("uniform", (0.3439 + 0.19) / 2)]
)
def test_weights_are_tokens_times_tokens_per_step(weights: str, expected: float) -> None:
    """One takes 4 steps of 1 s, the other 2 of 2 s, one sample each: 4 · 4/4 and 2 · 2/2. n steps go to 1 − 0.9ⁿ."""
    recording = run({"weights": weights}, 4, 1, [1.0, 0.5], **ALONE, steps={"name": "by_speed", "base": 4})
    assert recording.commits[0].time == 4.0
    assert recording.thetas[0] == pytest.approx(expected, rel=1e-12)


# Quorum and grace window. Three learners send after 4 steps: at 4, 5 and 6.4 s.

SPEEDS = [1.0, 0.8, 0.625]


def test_a_syncer_waits_for_its_quorum_and_no_longer() -> None:
    first = contributors(run({"quorum": 2, "grace": 0.0}, 4, 3, SPEEDS, **ALONE))[0]
    assert first == (5.0, [0, 1])
    first = contributors(run({"quorum": 1, "grace": 0.0}, 4, 3, SPEEDS, **ALONE))[0]
    assert first == (4.0, [0])
    first = contributors(run({}, 4, 3, SPEEDS, **ALONE))[0]
    assert first == (6.4, [0, 1, 2])


def test_the_grace_window_lasts_while_the_first_contributor_gets_its_answer_in_time() -> None:
    """τ = 3: worker 0, who sent at 4 s, wants it at 7 s. The quorum is there at 5 s, so 2 s are left."""
    half = run({"quorum": 2, "grace": 0.5, "tau": 3}, 4, 3, SPEEDS, **ALONE)
    assert contributors(half)[0] == (6.0, [0, 1])
    whole = run({"quorum": 2, "grace": 1.0, "tau": 3}, 4, 3, SPEEDS, **ALONE)
    assert contributors(whole)[0] == (6.4, [0, 1, 2])  # nobody else can come: it ends at once
    nothing = run({"quorum": 2, "grace": 1.0, "tau": 1}, 4, 3, SPEEDS, **ALONE)
    assert contributors(nothing)[0] == (5.0, [0, 1])  # it wanted it at 5 s


def test_who_comes_late_is_in_the_next_sync() -> None:
    recording = run({"quorum": 2, "grace": 0.0}, 4, 3, SPEEDS, **ALONE)
    second = recording.global_commits[1]
    # Worker 0 has its answer by its 8th step, sends then, and makes a quorum with worker 2's of 6.4 s.
    assert second.time == 8.0
    assert {update.worker for share in second.shares for update in share.updates} == {0, 2}
    stale = {share.updates[0].worker: share.hop_staleness for share in second.shares}
    assert stale[2] == 1  # from Θ of version 0, to that of version 1
    late = [share.hop_drift for share in second.shares if share.updates[0].worker == 2]
    assert late[0] == pytest.approx(0.3439)  # both others had trained 4 steps from 0: Θ was 1 − 0.9⁴


def test_the_way_there_is_taken_off_the_grace_window() -> None:
    """4 MB: a second inside region 0, two from region 1. Worker 0's is there at 5 s; the answer takes a second too."""
    changes: dict[str, Any] = {
        "cluster": {"regions": [{"workers": [1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0},
        "network": {"bandwidth_gbps": [[0.032, 0.032], [0.016, 0.032]]},
        "model": {"name": "sized", "parameters": 1_000_000},
        "executor": {"name": "timing"},
    }
    whole = run({"quorum": 1, "tau": 3}, 4, 3, [1.0, 1.0], **changes)
    assert contributors(whole)[0] == (6.0, [0, 1])  # it leaves at 6 s to be there at 7 s
    half = run({"quorum": 1, "tau": 3, "grace": 0.5}, 4, 3, [1.0, 1.0], **changes)
    assert contributors(half)[:2] == [(5.5, [0]), (6.0, [1])]


# Learners.


def test_nobody_ever_waits() -> None:
    """Not for slower ones, whatever the quorum, and not for slow links."""
    slow = {"bandwidth_gbps": 1e-7, "latency_ms": 700}  # a vector of six takes 2.6 s
    for policy in ({}, {"quorum": 1}, {"quorum": 2, "fragments": 3}):
        recording = run(policy, 4, 6, SPEEDS, model=NOISY, network=slow)
        assert waits(recording) == []
        steps = [sum(update.steps for update in recording.updates if update.worker == each) for each in range(3)]
        assert steps[0] > steps[1] > steps[2]


def test_a_late_answer_is_mixed_in_at_the_next_stop() -> None:
    """3 s there and back: sent after 4 steps, wanted after 5, there at 7 s, mixed at the 8th; α = ½."""
    recording = run(
        {"tau": 1, "alpha": 0.5}, 4, 3, [1.0], **ALONE, network={"bandwidth_gbps": math.inf, "latency_ms": 1500}
    )
    assert [update.steps for update in recording.updates] == [4, 1, 3, 1, 3]
    mixed = 0.5 * (1 - 0.9**8) + 0.5 * (1 - 0.9**4)
    assert recording.thetas == pytest.approx([1 - 0.9**4, mixed, recording.thetas[2]])
    assert [commit.time for commit in recording.global_commits] == [5.5, 9.5, 13.5]
    # Those wanted at 5 and 9 s came late; the third is never sent, since the run is over.
    assert recording.config.policy.report() == {"contributions_per_sync": 1.0, "late_answers": 2}


def test_nothing_is_sent_while_an_answer_is_outstanding() -> None:
    """The slow learner's first four steps end at 16 s: until then the fast one sends once, in four periods."""
    recording = run({"quorum": 2}, 4, 4, [1.0, 0.25], **ALONE)
    sent = [transfer.time for transfer in recording.transfers if transfer.time < 16.0]
    assert sent == [4.0]
    assert contributors(recording)[0] == (16.0, [0, 1])
    assert [share.steps for share in recording.global_commits[0].shares] == [4, 4]  # what it did since is not in it


# With a quorum of all, plain averaging and no grace it is Streaming DiLoCo.


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize(("fragments", "tau", "alpha"), [(1, 1, 0.0), (2, 1, 0.5), (3, 2, 0.5), (3, 3, 0.0)])
def test_it_is_streaming_diloco_bit_for_bit(workers: int, fragments: int, tau: int, alpha: float) -> None:
    """Sync by sync, in time and parameters: Nesterov, noise, and a learning-rate schedule."""
    common = {"fragments": fragments, "pattern": "balanced", "tau": tau, "alpha": alpha}
    outer = {"outer": {"name": "nesterov", "lr": 0.4, "momentum": 0.9}}
    changes = {
        "model": NOISY,
        "train": {"schedule": {"name": "warmup_cosine", "warmup": 3, "total": 18}, "optimizer": {"lr": 0.1}},
    }
    theirs = streaming({**common, **outer}, 6, 3, workers, **changes)
    ours = run({**common, **outer, "grace": 0.0}, 6, 3, [1.0] * workers, **changes)
    assert models(ours) == models(theirs)
    assert len(models(ours)) == 3 * fragments + fragments - 1  # the final sync is one more of all but fragment 0
    assert ours.simulation.ledger.committed == theirs.simulation.ledger.committed == workers * 18
    assert [update.samples for update in ours.updates] == [update.samples for update in theirs.updates]


def streaming(policy: dict[str, Any], period: int, rounds: int, workers: int, **changes: Any) -> Recording:
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
        data={"samples": 4096},
        steps={"base": period},
        budget={"local_steps": workers * period * rounds},
    )
    section = {"name": "streaming_diloco", "outer": SGD, **policy}
    return record(sections | {"policy": section} | changes, ["halos_streaming_diloco"])


def models(recording: Recording) -> list[tuple[float, list[float]]]:
    return [(commit.time, commit.params.flat.tolist()) for commit in recording.global_commits]  # type: ignore[union-attr]


def test_it_is_streaming_diloco_in_parameters_over_any_links_that_answer_in_time() -> None:
    common = {"fragments": 2, "pattern": "balanced", "tau": 2, "alpha": 0.5}
    links = {"model": NOISY, "network": {"bandwidth_gbps": 1e-6, "latency_ms": 100}}
    ours, theirs = run({**common, "grace": 0.0}, 5, 3, [1.0] * 4, **links), streaming(common, 5, 3, 4, **links)
    assert [params for _, params in models(ours)] == [params for _, params in models(theirs)]
    assert models(ours)[0][0] != models(theirs)[0][0]  # but a transfer is no all-reduce


# Faults.


def crashes(*several: tuple[int, float, float]) -> dict[str, Any]:
    at = [{"worker": worker, "at_seconds": start, "seconds": seconds} for worker, start, seconds in several]
    return {"faults": {"name": "crashes", "at": at}}


def test_who_crashes_begins_anew_from_the_global_model_and_others_go_on() -> None:
    """H = 4, τ = 1. Worker 1 is down from 5.5 to 7.5 s: in its job of steps 6 to 8, with step 5 not yet sent."""
    recording = run({"quorum": 1, "grace": 0.0}, 4, 3, [1.0, 1.0], model=NOISY, **crashes((1, 5.5, 2.0)))
    ledger = recording.simulation.ledger
    assert (ledger.dropped, ledger.lost) == (1, 3)
    # Worker 0 sends at 4, 8 and 12 s, worker 1 at 4, 11.5 and 15.5 s: the four steps it lost are made up for.
    assert (recording.simulation.now, ledger.committed) == (15.5, 24)
    mine = [update for update in recording.updates if update.worker == 1]
    assert [update.start_time for update in mine][:3] == [0.0, 4.0, 7.5]
    then = next(commit for commit in reversed(recording.global_commits) if commit.time <= 7.5)
    assert then.time == 4.0
    assert torch.equal(mine[2].start.flat, then.params.flat)  # type: ignore[arg-type]
    assert [each for each in waits(recording) if each[0] == 0] == []


def test_a_quorum_that_never_comes_ends_with_the_final_sync() -> None:
    """Both are needed, and worker 1 is gone for good: worker 0 trains on alone, and all of it is merged at the end."""
    recording = run({"quorum": 2}, 4, 3, [1.0, 1.0], model=NOISY, **crashes((1, 0.5, math.inf)))
    # Three rounds of 8 steps, and a fourth for the 4 that were lost: 7 periods. The first had waited at the syncer.
    assert contributors(recording) == [(28.0, [0]), (28.0, [0])]
    assert recording.simulation.ledger.committed == 28


def test_a_quorum_is_one_of_learners_and_not_of_contributions() -> None:
    """Worker 1 sends at 4 s, crashes, is back at 5 s and sends again at 9 s; worker 2 sends at 10 s."""
    recording = run({"quorum": 3}, 4, 3, [1.0, 1.0, 0.4], model=NOISY, **crashes((1, 4.5, 0.5)))
    assert contributors(recording)[0] == (10.0, [0, 1, 2])
    assert [share.updates[0].worker for share in recording.global_commits[0].shares] == [0, 1, 1, 2]


def test_a_run_with_crashes_can_be_resumed() -> None:
    policy = {"name": "decoupled_diloco", "quorum": 2, "fragments": 3}
    sections = tiny(
        cluster={"regions": [{"workers": SPEEDS}], "step_time_ms": 1000.0},
        network={"bandwidth_gbps": 1e-6},
        data={"samples": 4096},
        steps={"base": 4},
        budget={"local_steps": 60},
    )
    changes = {"policy": policy, "model": NOISY, **crashes((1, 7.5, 3.0))}
    assert problem(sections | changes, PLUGIN, cuts=4) is None


def test_a_learner_that_is_cut_off_goes_on_training_and_sends_when_it_can() -> None:
    """The link from region 1 is down from 3 to 10 s: what worker 1 sends at 4 s is there at 10 s."""
    changes: dict[str, Any] = {
        "cluster": {"regions": [{"workers": [1.0]}, {"workers": [1.0]}], "step_time_ms": 1000.0},
        "faults": {"name": "links", "at": [{"src": 1, "dst": 0, "at_seconds": 3.0, "seconds": 7.0}]},
    }
    recording = run({"quorum": 1, "grace": 0.0}, 4, 5, [1.0, 1.0], model=NOISY, **changes)
    assert contributors(recording)[:3] == [(4.0, [0]), (8.0, [0]), (10.0, [1])]
    assert waits(recording) == []
    assert recording.simulation.ledger.dropped == recording.simulation.ledger.lost == 0


@pytest.mark.parametrize("quorum", [1, 2, None])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_ledger_adds_up_under_crashes_and_lost_messages(quorum: int | None, seed: int) -> None:
    faults = [
        {"name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.002},
        {"name": "message_loss", "probability": 0.1},
    ]
    changes = {"model": NOISY, "faults": {"name": "several", "of": faults}, "seed": seed}
    recording = run({"quorum": quorum, "fragments": 3}, 6, 10, [1.0, 1.0, 0.7, 0.4], **changes)
    ledger, end = recording.simulation.ledger, recording.simulation.now
    assert ledger.lost > 0
    assert ledger.dropped > 0
    assert ledger.committed >= 240
    counted = [update.id for commit in recording.global_commits for share in commit.shares for update in share.updates]
    assert len(counted) == len(set(counted))
    assert ledger.trained == sum(update.steps for update in recording.updates)
    assert ledger.trained == ledger.committed + ledger.dropped + ledger.in_flight
    early = [each for each in recording.updates if each.time < end / 2 and each.id not in set(counted)]
    assert sum(update.steps for update in early) <= ledger.dropped


# What cannot be.


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"quorum": 0}, r"policy\.quorum: 0 is not a positive number of learners, or null for all"),
        ({"quorum": 3}, r"policy\.quorum: 3 is not at most the 2 workers"),
        ({"grace": -1.0}, r"policy\.grace: -1\.0 is not zero or a positive, finite number"),
        ({"averaging": "median"}, r"policy\.averaging: 'median' is not one of radial_directional, mean"),
        ({"weights": "steps"}, r"policy\.weights: 'steps' is not one of tokens, uniform"),
        ({"fragments": 0}, r"policy\.fragments: 0 is not a positive number"),
        ({"fragments": 7}, r"policy\.fragments: 7 is not possible"),
        ({"pattern": "bytes"}, r"policy\.pattern: 'bytes' is not one of strided, sequential, balanced"),
        ({"tau": 0}, r"policy\.tau: 0 is not a positive number of local steps"),
        ({"tau": 4}, r"policy\.tau: 4 is not below the 4 local steps of a period"),
        ({"alpha": 1.5}, r"policy\.alpha: 1\.5 is not in \[0, 1\]"),
        ({"server_region": 1}, r"policy\.server_region: 1 is not a region, 0 to 0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(policy, 4, 1, [1.0, 1.0], model=NOISY)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[3] / "configs/small/decoupled_diloco.yaml"
    assert main([str(config), "policy.tau=32", f"out={tmp_path / 'run'}"]) == 2
    assert "policy.tau: 32 is not below" in capsys.readouterr().err


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = tuple(
        {"name": "decoupled_diloco", "outer": {"lr": 0.2, "momentum": 0.5}, **more}
        for more in (
            {"fragments": 2, "quorum": 1},
            {"fragments": 3, "quorum": 1, "grace": 0.0, "alpha": 0.0, "averaging": "mean"},
        )
    )

    def least_steps(self, section: dict[str, Any]) -> int:
        """More than τ."""
        return 2
