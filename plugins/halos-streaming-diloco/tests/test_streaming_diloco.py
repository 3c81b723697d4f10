"""Streaming DiLoCo: schedules and recurrences worked out by hand, closed forms of the time, identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest
import torch

from halos import UserError
from halos.testing import Recording, main, record, tiny
from halos.testing.conformance import PolicyConformance

PLUGIN = ["halos_streaming_diloco"]
SLOPES = str(Path(__file__).with_name("slopes.py"))
MEGABIT = 1_000_000


def run(policy: dict[str, Any], period: int, rounds: int, workers: int = 2, **changes: Any) -> Recording:
    """`rounds` rounds of `period` steps of 1 s; fragments are cut by bytes, so that any vector has some."""
    section = policy if "name" in policy else {"name": "streaming_diloco", "pattern": "balanced", **policy}
    sections = tiny(
        cluster={"regions": [{"workers": [1.0] * workers}], "step_time_ms": 1000.0},
        steps={"base": period},
        budget={"local_steps": workers * period * rounds},
    )
    return record(sections | {"policy": section} | changes, [*PLUGIN, "halos_eager_diloco"])


def timed(policy: dict[str, Any], period: int, rounds: int, all_reduce: float, **changes: Any) -> Recording:
    """Without training; `all_reduce` are the seconds of the whole model's, of 48 megabits, between two workers."""
    model = {"name": "sized", "parameters": 48 * MEGABIT // 32}
    network = {"bandwidth_gbps": 48 * MEGABIT / all_reduce / 1e9}  # two workers: 2 (M − 1) / M = 1
    return run(policy, period, rounds, executor={"name": "timing"}, model=model, network=network, **changes)


def chunks(recording: Recording, worker: int = 0) -> list[int]:
    """A worker's jobs, in local steps."""
    return [update.steps for update in recording.updates if update.worker == worker]


def crossings(recording: Recording) -> list[tuple[float, int]]:
    """When which fragment's averaging began: that of the lesser bytes is fragment 0."""
    small = min(transfer.bytes for transfer in recording.transfers)
    return [(transfer.start_time, int(transfer.bytes > small)) for transfer in recording.transfers]


# Schedules. Three parameters in two fragments: one in fragment 0, two in fragment 1.

UNEQUAL: dict[str, Any] = {"model": {"name": "sized", "parameters": 3}, "executor": {"name": "timing"}}


def test_fragments_are_sent_at_100_and_200_and_at_50_and_150_and_250() -> None:
    recording = run({"fragments": 2, "tau": 1}, period=100, rounds=3, **UNEQUAL)
    assert crossings(recording) == [(50, 1), (100, 0), (150, 1), (200, 0), (250, 1), (300, 0), (300, 1)]  # 300: the end


def test_training_runs_to_the_next_send_or_receive() -> None:
    """τ = 1: sent after 50, received after 51, sent after 100, received after 101, and so on."""
    recording = run({"fragments": 2, "tau": 1}, period=100, rounds=3, **UNEQUAL)
    assert chunks(recording) == [50, 1, 49, 1, 49, 1, 49, 1, 49, 1, 49]
    assert chunks(run({"fragments": 2, "tau": 0}, period=100, rounds=2, **UNEQUAL)) == [50, 50, 50, 50]


def test_offsets_can_be_given_and_a_late_receive_falls_into_the_next_round() -> None:
    recording = run({"fragments": 2, "offsets": [6, 9], "tau": 2}, period=10, rounds=2, **UNEQUAL)
    # Sent after 6, 16 and 9, 19; received after 8, 18 and 11. At the end, 20: what was sent after 19 is received,
    # then both are sent once more.
    assert crossings(recording) == [(6, 0), (9, 1), (16, 0), (19, 1), (20, 0), (20, 1)]
    assert chunks(recording) == [6, 2, 1, 1, 1, 5, 2, 1, 1]


def test_every_worker_receives_after_its_own_tau() -> None:
    recording = run({"fragments": 2, "tau": [1, 3]}, period=10, rounds=2, **UNEQUAL)
    assert chunks(recording, worker=0) == [5, 1, 4, 1, 4, 1, 4]
    assert chunks(recording, worker=1) == [5, 3, 2, 3, 2, 3, 2]
    assert crossings(recording) == [(5, 1), (10, 0), (15, 1), (20, 0), (20, 1)]


def test_more_fragments_than_local_steps_share_steps() -> None:
    """P = 3, H = 2: offsets 0, 0.67 and 1.33, rounded to 0, 1 and 1."""
    recording = run({"fragments": 3, "tau": 0}, period=2, rounds=2, **UNEQUAL)
    assert [transfer.start_time for transfer in recording.transfers] == [1, 1, 2, 3, 3, 4, 4, 4]
    assert recording.simulation.ledger.in_flight == 0


# A linear loss: local steps add 1 to the first worker's two parameters and 3 to the second's. H = 4, two fragments
# of one parameter each: fragment 0 is sent after 4 and 8, fragment 1 after 2, 6 and, as the end, 8. Outer SGD of ½.

LINEAR: dict[str, Any] = {
    "model": {"name": "quadratic", "size": 2},
    "executor": {"name": "slopes", "steps": [1.0, 3.0]},
    "plugins": [SLOPES],
}
HALF = {"name": "sgd", "lr": 0.5}


def linear(**policy: Any) -> Recording:
    return run({"fragments": 2, "outer": HALF, **policy}, period=4, rounds=2, **LINEAR)


def models(recording: Recording) -> list[tuple[float, float, float]]:
    """When the global model changed, and what its two fragments were then."""
    return [(commit.time, *commit.params.flat.tolist()) for commit in recording.global_commits]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("tau", "alpha", "first", "second"),
    [
        # First fragment: after 4 steps θ = (4, 12), mean 8, so Θ = 4; second: after 2, θ = (2, 6), mean 4, so Θ = 2.
        # τ = 0. Mixed to (4, 4), after 8 at (8, 16), mean 12: Θ = 4 + ½ 8.
        # Mixed to (2, 2), after 6 (6, 14), mean 10: Θ = 2 + ½ 8; mixed to (6, 6), after 8 (8, 12): Θ = 6 + ½ 4.
        (0, 0.0, [4, 8], [2, 6, 8]),
        # (4, 8), (8, 20), mean 14: 4 + ½ 10.
        # (2, 4), (6, 16), mean 11: 2 + ½ 9; (6.25, 11.25), (8.25, 17.25), mean 12.75: 6.5 + ½ 6.25.
        (0, 0.5, [4, 9], [2, 6.5, 9.625]),
        # Never mixed: (8, 24), mean 16: 4 + ½ 12.  (6, 18), mean 12: 2 + ½ 10; (8, 24), mean 16: 7 + ½ 9.
        (0, 1.0, [4, 10], [2, 7, 11.5]),
        # τ = 1. Another step on, (5, 15) is mixed to (4, 4), which loses it; after 8 (7, 13), mean 10: 4 + ½ 6.
        # (3, 9) to (2, 2), after 6 (5, 11), mean 8: 2 + ½ 6; (6, 14) to (5, 5), after 8 (6, 8), mean 7: 5 + ½ 2.
        (1, 0.0, [4, 7], [2, 5, 6]),
        # (5, 15) to (4.5, 9.5), (7.5, 18.5), mean 13: 4 + ½ 9.
        # (3, 9) to (2.5, 5.5), (5.5, 14.5), mean 10: 2 + ½ 8; (6.5, 17.5) to (6.25, 11.75), (7.25, 14.75): 6 + ½ 5.
        (1, 0.5, [4, 8.5], [2, 6, 8.5]),
        # Never mixed, as above.
        (1, 1.0, [4, 10], [2, 7, 11.5]),
    ],
)
def test_two_replicas_on_a_linear_loss_by_hand(tau: int, alpha: float, first: list[float], second: list[float]) -> None:
    expected = [
        (2, 0, second[0]),
        (4, first[0], second[0]),
        (6, first[0], second[1]),
        (8, first[1], second[1]),
        (8, first[1], second[2]),
    ]
    assert models(linear(tau=tau, alpha=alpha)) == expected  # all of it in halves of halves: exact


def test_workers_of_different_tau_by_hand() -> None:
    """τ = 0 and 1, α = 0, the second fragment. Sent after 2 steps: (2, 6), Θ = 2.

    The first worker mixes at once, 2, and is at 6 after 6 steps; the second after 3, at 9, and is at 2 + 3 · 3 = 11.
    Mean 8.5, Θ = 2 + ½ 6.5 = 5.25. After 8 the first is at 7.25, the second at 5.25 + 3: mean 7.75, Θ = 6.5.
    """
    assert [second for _, _, second in models(linear(tau=[0, 1], alpha=0.0))] == [2, 2, 5.25, 5.25, 6.5]


def test_three_rounds_of_the_corrected_merge_by_hand() -> None:
    """τ = 1, outer SGD of ½, three rounds; every merge adds the one step taken meanwhile, 1 and 3, to Θ.

    First fragment: after 4 (4, 12), mean 8, Θ = 4; after 5 (5, 7), after 8 (8, 16), mean 12, Θ = 4 + ½ 8 = 8; after 9
    (9, 11), after 12 (12, 20), mean 16, Θ = 12. Second: after 2 (2, 6), Θ = 2; after 3 (3, 5), after 6 (6, 14),
    mean 10, Θ = 6; after 7 (7, 9), after 10 (10, 18), mean 14, Θ = 10; after 11 (11, 13), after 12 (12, 16), Θ = 12.
    """
    policy = {"fragments": 2, "outer": HALF, "tau": 1, "merge": "corrected"}
    recording = run(policy, period=4, rounds=3, **LINEAR)
    ours = [(when, first, second) for when, first, second in models(recording)]
    assert ours == [(2, 0, 2), (4, 4, 2), (6, 4, 6), (8, 8, 6), (10, 8, 10), (12, 12, 10), (12, 12, 12)]
    begun = [float(each.start.flat[0]) for each in recording.updates if each.worker == 1]  # type: ignore[index]
    assert begun == [0, 6, 9, 12, 7, 10, 13, 16, 11, 14, 17]  # after 0, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 11 steps


def test_the_report_says_how_far_corrected_merges_move_and_how_late_they_are() -> None:
    """As above: Θ − y is 0, −4 (after 2), 0, −8 (4), 0, −8 (6), 0, −8 (8), 0, −8 (10); steps meanwhile 1 and 3."""
    policy = {"fragments": 2, "outer": HALF, "tau": 1, "merge": "corrected"}
    report = run(policy, period=4, rounds=3, **LINEAR).config.policy.report()  # type: ignore[attr-defined]
    assert report == {"local_mix_distance": (4 + 8 + 8 + 8 + 8) / 10, "local_merge_drift": 2.0}


def test_the_report_says_how_far_mixes_move() -> None:
    """τ = 0, α = ½: (2, 6) towards 2 by 0 and 2; (4, 12) towards 4 by 0 and 4; (6, 16) towards 6.5 by ¼ and 4¾;
    (8, 20) towards 9 by ½ and 5½. The final sync is mixed into nothing: training is over."""
    distances = [0, 2, 0, 4, 0.25, 4.75, 0.5, 5.5]
    report = linear(tau=0, alpha=0.5).config.policy.report()  # type: ignore[attr-defined]
    assert report == {"local_mix_distance": sum(distances) / 8}


def test_eager_fragments_by_hand() -> None:
    """First fragment, after 4: Δ = (−4, −12), Δ̃ = Δ/2, Θ = (1, 3). After 8: (5, 15), Δ the same, Δ̃ = Δ̄' = −8,
    Θ = (5, 7). At the end, from (1, 3) again, Δ̃ = −8 + (−8 + 2) and −8 + (−8 + 6): Θ = (8, 8).

    Second, after 2: Δ = (−2, −6), Θ = (½, 1½). After 6: (4½, 13½), Δ = (−4, −12), Δ̃ = −4 + (−4 + 2)/2 and
    −4 + (−12 + 6)/2, Θ = (3, 5). After 8: (5, 11), Δ = (−2, −6), Δ̃ = −8 + (−2 + 4)/2 and −8 + (−6 + 12)/2,
    Θ = (6½, 7½). At the end, from (3, 5), Δ̃ = −7 + (−4 + 1) and −5 + (−4 + 3): (8, 8).
    """
    expected = [(2, 0, 1), (4, 2, 1), (6, 2, 4), (8, 6, 4), (8, 6, 7), (8, 8, 7), (8, 8, 8)]
    assert models(linear(overlap="outer_step")) == expected


def test_with_alpha_one_workers_are_independent() -> None:
    policy = {"fragments": 2, "tau": 1, "alpha": 1.0}
    recording = run(policy, period=4, rounds=3, model={"name": "quadratic", "size": 2, "dtype": "float64"})
    for worker in range(2):
        done = 0
        for update in (each for each in recording.updates if each.worker == worker):
            done += update.steps
            assert update.params.flat.tolist() == pytest.approx([1 - 0.9**done] * 2, abs=1e-14)  # type: ignore[union-attr]
        assert done == 12


# Identities.

NOISY: dict[str, Any] = {"name": "quadratic", "size": 3, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3]}
DIFFERENT: dict[str, Any] = {"cluster": {"regions": [{"workers": [0.5, 1.0, 0.7]}], "step_time_ms": 1000.0}}
SLOW: dict[str, Any] = {"network": {"bandwidth_gbps": 1e-7}}
WARMED_UP: dict[str, Any] = {
    "train": {
        "batch_size": 1,
        "optimizer": {"name": "adamw", "lr": 0.05},
        "schedule": {"name": "warmup_cosine", "warmup": 6, "total": 24},
        "clip": 1.0,
    }
}


def pair(other: str, rule: str, policy: dict[str, Any], **changes: Any) -> tuple[Recording, Recording]:
    """Streaming and another policy on the same six rounds of four steps of three unequal workers."""
    outer = {"name": rule, "lr": 0.05} if rule == "adam" else {"name": rule, "lr": 0.3, "momentum": 0.5}
    same = {"model": NOISY, **DIFFERENT, **SLOW, **WARMED_UP, **changes}
    ours = run({"outer": outer, **policy}, period=4, rounds=6, workers=3, **same)
    return ours, run({"name": other, "outer": outer}, period=4, rounds=6, workers=3, **same)


def trained(recording: Recording) -> list[tuple[Any, ...]]:
    """What was trained when, and on what."""
    return [(each.worker, each.time, each.samples, each.lr_step, each.losses) for each in recording.updates]


def bits(recording: Recording) -> list[list[float]]:
    """The global model after every commit."""
    return [commit.params.flat.tolist() for commit in recording.global_commits]  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_one_fragment_received_at_once_is_diloco_bit_for_bit(rule: str) -> None:
    ours, diloco = pair("diloco", rule, {"fragments": 1, "tau": 0, "alpha": 0.0})
    assert trained(ours) == trained(diloco)
    assert bits(ours) == bits(diloco)
    assert [each.as_json() for each in ours.commits] == [each.as_json() for each in diloco.commits]
    assert ours.transfers == diloco.transfers


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("count", [2, 3])
def test_any_fragments_sent_at_once_and_received_at_once_are_diloco(rule: str, count: int) -> None:
    policy = {"fragments": count, "offsets": [0] * count, "tau": 0, "alpha": 0.0}
    ours, diloco = pair("diloco", rule, policy)
    assert [each[2:4] for each in trained(ours)] == [each[2:4] for each in trained(diloco)]
    complete = ours.global_commits[count - 1 :: count]  # every round's last fragment
    assert [commit.time for commit in complete] == pytest.approx([commit.time for commit in diloco.global_commits])
    for a, b in zip(complete, diloco.global_commits, strict=True):
        torch.testing.assert_close(a.params.flat, b.params.flat, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_one_eager_fragment_is_eager_diloco_bit_for_bit(rule: str) -> None:
    ours, eager = pair("eager_diloco", rule, {"fragments": 1, "overlap": "outer_step"})
    assert trained(ours) == trained(eager)
    assert bits(ours) == bits(eager)
    assert ours.transfers == eager.transfers
    books = [[(each.time, each.version, each.local_steps) for each in run.global_commits] for run in (ours, eager)]
    assert books[0] == books[1]
    shares = [
        [sorted((share.from_version, share.hop_drift) for share in each.shares) for each in run.global_commits]
        for run in (ours, eager)
    ]
    assert shares[0] == shares[1]


# Time, bytes, and what is counted when.


@pytest.mark.parametrize(
    ("tau", "each", "expected"),
    [
        # Two rounds of 4 steps: fragments of A seconds are sent after 2, 4, 6, 8, and at the end one more. Three are
        # received on the way, and hide min(A, τ · 1 s); two are awaited at the end: 8 + 3 (A − hidden) + 2 A.
        (0, 0.5, 8 + 3 * 0.5 + 1.0),
        (1, 0.5, 8 + 0.0 + 1.0),  # hidden: all of it
        (1, 1.5, 8 + 3 * 0.5 + 3.0),  # hidden: 1 s each
        (2, 1.75, 8 + 0.0 + 3.5),
    ],
)
def test_tau_steps_hide_as_much_of_an_all_reduce(tau: int, each: float, expected: float) -> None:
    recording = timed({"fragments": 2, "tau": tau}, period=4, rounds=2, all_reduce=2 * each)
    assert recording.simulation.now == pytest.approx(expected, abs=1e-9)


def test_bytes_are_the_same_in_all_but_cross_in_smaller_pieces() -> None:
    diloco = timed({"name": "diloco"}, period=12, rounds=4, all_reduce=1.0)
    total, peak = carried(diloco)
    for count in (2, 3, 4):
        ours = timed({"fragments": count, "tau": 1}, period=12, rounds=4, all_reduce=1.0)
        pieces = 4 * count + count - 1  # the last sync sends once more what was not sent after the last step
        assert carried(ours)[0] == pytest.approx(total / (4 * count) * pieces)
        assert carried(ours)[1] == pytest.approx(peak / count)
        assert len(ours.transfers) == pieces


def carried(recording: Recording) -> tuple[int, int]:
    """Bytes in all, and most that the link has to carry at once."""
    return sum(each.bytes for each in recording.transfers), max(each.bytes for each in recording.transfers)


def test_updates_are_counted_by_the_commit_that_completes_them_and_the_last_round_by_the_last() -> None:
    """Fragments of two workers are sent after 2, 4, 6, …: what is trained up to step t is sent in both after t + 2."""
    recording = run({"fragments": 2, "tau": 0}, period=4, rounds=3, model={"name": "quadratic", "size": 2})
    assert [commit.time for commit in recording.global_commits] == [2, 4, 6, 8, 10, 12, 12]
    steps = [sum(share.steps for share in commit.shares) for commit in recording.global_commits]
    assert steps == [0, 4, 4, 4, 4, 0, 8]
    assert [share.hop_drift for commit in recording.global_commits for share in commit.shares] == [
        0.0
    ] * 12  # one at a time


@pytest.mark.parametrize("overlap", ["none", "outer_step"])
@pytest.mark.parametrize("budget", [1, 61, 71, 72])
def test_every_trained_step_is_committed_also_if_the_budget_is_no_number_of_rounds(overlap: str, budget: int) -> None:
    policy = {"fragments": 3, "tau": [0, 3, 2], "overlap": overlap}
    recording = run(policy, 4, 1, workers=3, model=NOISY, **DIFFERENT, **SLOW, budget={"local_steps": budget})
    ledger = recording.simulation.ledger
    assert (ledger.committed, ledger.in_flight) == (ledger.trained, 0)
    assert ledger.trained == -(-budget // 12) * 12


def test_nothing_is_kept_at_the_end() -> None:
    for overlap in ("none", "outer_step"):
        recording = run({"fragments": 3, "overlap": overlap}, period=4, rounds=5, model=NOISY)
        state = recording.config.policy._run  # type: ignore[attr-defined]
        assert not (state.chunks or state.waiting or getattr(state, "ended", None))


def test_the_trace_shows_communication_under_computation(tmp_path: Path) -> None:
    """An all-reduce of half a second is under way while the step after it was sent is computed; none is waited for."""
    config = tiny(
        plugins=[str(Path(__file__).parents[1] / "halos_streaming_diloco.py")],
        out=str(tmp_path / "run"),
        model={"name": "sized", "parameters": 48 * MEGABIT // 32},
        executor={"name": "timing"},
        network={"bandwidth_gbps": 0.048},
        cluster={"regions": [{"name": "here", "workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
        steps={"base": 4},
        budget={"local_steps": 24},
    ) | {"policy": {"name": "streaming_diloco", "fragments": 2, "pattern": "balanced", "tau": 1}}
    del config["train"], config["data"]
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main([str(tmp_path / "run.yaml")]) == 0
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    rows = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [(rows[e["pid"], e["tid"]], e["cat"], e["ts"] / 1e6, e["dur"] / 1e6) for e in events if e["ph"] == "X"]
    link = [(start, start + length) for row, _, start, length in slices if row == "all-reduce"]
    assert link == [(2 * k, 2 * k + 0.5) for k in range(1, 7)] + [(12.5, 13.0)]
    for worker in ("worker 0 (speed 1)", "worker 1 (speed 1)"):
        computing = [(start, start + length) for row, cat, start, length in slices if (row, cat) == (worker, "compute")]
        for begin, end in link[:-2]:
            assert any(a <= begin and end <= b for a, b in computing)
        waits = [start for row, cat, start, _ in slices if (row, cat) == (worker, "wait")]
        assert min(waits) == 12.0  # at the end of training, for the last fragments


# Mistakes.


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"alpha": 1.5}, r"policy\.alpha: 1\.5 is not in \[0, 1\]"),
        ({"alpha": -0.1}, r"policy\.alpha: -0\.1 is not in"),
        ({"tau": -1}, r"policy\.tau: -1 is not zero or a positive number of local steps"),
        ({"tau": 4}, r"policy\.tau: 4 is not below the 4 local steps of a round"),
        ({"tau": [1, 1, 1]}, r"policy\.tau: has 3 numbers for 2 workers"),
        ({"fragments": 0}, r"policy\.fragments: 0 is not a positive number"),
        ({"fragments": 4}, r"policy\.fragments: 4 is not possible: 3 parameters"),
        ({"pattern": "random"}, r"policy\.pattern: 'random' is not one of strided, sequential, balanced"),
        ({"overlap": "inner_step"}, r"policy\.overlap: 'inner_step' is not one of none, outer_step"),
        ({"offsets": [0]}, r"policy\.offsets: \[0\] is not a list of 2 local steps, one per fragment"),
        ({"offsets": [0, -1]}, r"policy\.offsets: \[0, -1\] is not a list of 2"),
        ({"offsets": [0, 4]}, r"policy\.offsets: \[0, 4\] is not below the 4 local steps of a round"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run({"fragments": 2, **policy}, period=4, rounds=1, model=NOISY)


def test_more_fragments_than_the_model_has_layers_are_refused() -> None:
    model = {"name": "gpt_neox", "hidden_size": 8, "layers": 4, "heads": 1, "vocab_size": 64}
    with pytest.raises(
        UserError, match=r"policy\.fragments: 6 is not possible: 4 layers and what is in none make 1 to 5"
    ):
        run({"fragments": 6, "pattern": "strided"}, 4, 1, executor={"name": "timing"}, model=model)


def test_unequal_local_steps_are_refused() -> None:
    changes: dict[str, Any] = {
        "cluster": {"regions": [{"workers": [1.0, 0.5]}]},
        "steps": {"name": "by_speed", "base": 4},
    }
    with pytest.raises(
        UserError, match=r"policy: workers take 2 to 4 local steps; streaming_diloco needs the same for all: steps:"
    ):
        run({"fragments": 2}, 4, 1, model=NOISY, **changes)


class TestConformance(PolicyConformance):
    plugins = PLUGIN
    sections = tuple(
        {"name": "streaming_diloco", "pattern": "balanced", "outer": {"lr": lr}, **more}
        for lr, more in (
            (0.4, {"fragments": 2, "tau": 1}),
            (0.4, {"fragments": 3, "tau": 0, "alpha": 0.0}),
            (0.2, {"fragments": 2, "tau": 1, "merge": "corrected"}),
            (0.2, {"fragments": 3, "overlap": "outer_step"}),
        )
    )

    def least_steps(self, section: dict[str, Any]) -> int:
        """More than τ."""
        return 2

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> Optional[float]:
        """Of one fragment: every all-reduce but the last hides τ of the 4 steps of a round, or one round if eager."""
        if section["fragments"] > 1:
            return None
        hidden = compute if "overlap" in section else section["tau"] * compute / 4
        return rounds * compute + (rounds - 1) * max(0.0, all_reduce - hidden) + all_reduce
