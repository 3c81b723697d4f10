"""What a line says under each kind of policy: timelines and numbers worked out by hand.

The problem is ½ Σ aᵢ (θᵢ − 1)² from θ = 0 by inner SGD of rate 0.1: a local step leaves 1 − 0.1 a of each 1 − θᵢ. With
a = 1 two steps leave 0.81, so Δ = −0.19 (1 − θ). Steps take a second, links nothing, unless said.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from halos.testing import tiny, two_workers

ONE = {"dtype": "float64", "size": 1}
EXACT = 1e-12


def column(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [line[key] for line in lines]


def probe(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [None if line["probe"] is None else line["probe"][key] for line in lines]


def close(*values: Any) -> list[Any]:
    return [None if value is None else pytest.approx(value, abs=EXACT) for value in values]


def test_diloco_never_drifts(drifting: Any) -> None:
    # M = 2, H = 2, two rounds: 0 → 0.19 → 0.19 + 0.81 · 0.19.
    lines = drifting(tiny(model=ONE), probed=1.0, shift=True)
    assert column(lines, "time") == [2.0, 2.0, 4.0, 4.0]
    assert column(lines, "version") == [1, 1, 2, 2] and column(lines, "index") == [0, 1, 0, 1]
    assert column(lines, "workers") == [[0], [1]] * 2 and column(lines, "local_steps") == [2] * 4
    for key in ("versions", "steps", "merges"):
        assert column(lines, key) == [0] * 4
    assert column(lines, "seconds") == [2.0] * 4
    assert column(lines, "tree_distance") == [1, 3] * 2  # the last is M H − 1
    assert column(lines, "ancestor") == [True] * 4
    for key in ("drift", "drift_by_delta", "drift_rms", "gap"):
        assert column(lines, key) == [0.0] * 4
    assert column(lines, "drift_by_norm") == [None, None, 0.0, 0.0]  # at first θ is 0
    assert column(lines, "delta_norm") == close(0.19, 0.19, 0.1539, 0.1539)
    assert column(lines, "redundancy") == [None] * 4  # nothing has happened meanwhile
    assert column(lines, "alignment") == [None] * 4  # SGD has no momentum
    assert column(lines, "spread") == close(1, 1, 1, 1) and column(lines, "consensus") == close(0, 0, 0, 0)
    assert probe(lines, "staleness_error") == [0.0] * 4 and probe(lines, "staleness_cosine") == close(1, 1, 1, 1)
    assert probe(lines, "noise_floor") == [0.0] * 4  # no noise
    assert probe(lines, "shift") == [0.0] * 4 and probe(lines, "loss_change") == [0.0] * 4
    assert probe(lines, "kl") == [None] * 4  # the model has no logits
    for line in lines:
        (way,) = line["end_to_end"]
        assert way["update"] == line["updates"][0] and way["probe"] == line["probe"]
        for key in ("versions", "seconds", "steps", "tree_distance", "drift", "drift_by_delta", "gap"):
            assert way[key] == line[key]


def test_one_step_delay(drifting: Any) -> None:
    # Two rounds start from θ⁰ = 0, then each from the θ before the last. Means: −0.19 twice, −0.81 · 0.19 = −0.1539,
    # −0.62 · 0.19 = −0.1178. So θ: 0, 0.19, 0.38, 0.5339, 0.6517, at 2, 4, 6 and 8 s.
    policy = {"name": "one_step_delay", "outer": {"name": "sgd", "lr": 1.0}}
    lines = drifting(tiny(model=ONE, policy=policy, budget={"local_steps": 16}), probed=1.0, shift=True)
    mine = lines[::2]  # both workers do the same
    assert column(mine, "time") == [2.0, 4.0, 6.0, 8.0]
    assert column(mine, "versions") == [0, 1, 1, 1] and column(mine, "seconds") == [2.0] * 4
    assert column(mine, "steps") == [0, 4, 4, 4]  # M H, of one round
    assert column(lines, "tree_distance") == [1, 3] + [5, 7] * 3  # (k + 1) M H − 1
    drifts = [0.0, 0.19, 0.19, 0.5339 - 0.38]
    assert column(mine, "drift") == close(*drifts)
    targets, deltas = [0.0, 0.19, 0.38, 0.5339], [0.19, 0.19, 0.1539, 0.1178]
    assert column(mine, "drift_by_norm") == close(None, 1.0, 0.5, drifts[3] / targets[3])
    assert column(mine, "drift_by_delta") == close(*(d / delta for d, delta in zip(drifts, deltas)))
    # The server's steps are the means: 0.19, 0.19, 0.1539; e over its bias, by hand.
    e = [0.001 * 0.19**2]
    e.append(0.999 * e[0] + 0.001 * 0.19**2)
    e.append(0.999 * e[1] + 0.001 * 0.1539**2)
    c = [math.sqrt(each / (1 - 0.999 ** (n + 1))) for n, each in enumerate(e)]
    assert column(mine, "gap") == close(0.0, 0.19 / c[0], 0.19 / c[1], drifts[3] / c[2])
    assert column(mine, "redundancy") == close(None, 1, 1, 1)  # all go the same way
    # From the target: Δ* = −0.19 (1 − t), so Δ − Δ* = −(1 − 0.81) d.
    fresh = [0.19 * (1 - t) for t in targets]
    assert probe(mine, "staleness_error") == close(*(0.19 * d / f for d, f in zip(drifts, fresh)))
    assert probe(mine, "shift") == close(*((0.19 * d) ** 2 for d in drifts))
    losses = [(0.5 * (1 - t) ** 2 - 0.5 * (1 - t + d) ** 2) for t, d in zip(targets, drifts)]
    assert probe(mine, "loss_change") == close(*losses)


def test_injected_delay_is_one_step_delay_by_another_clock(drifting: Any) -> None:
    # The same models and ages in steps, as above; a round of 2 s is merged when the next is over, the last at once.
    policy = {"outer": {"name": "sgd", "lr": 1.0}, "outer_delay": 1}
    runs = []
    for name in ("injected_delay", "one_step_delay"):
        sections = tiny(model=ONE, policy={"name": name, **policy}, budget={"local_steps": 16})
        runs.append(drifting(sections, probed=1.0))
    injected, overlapped = runs
    assert column(injected[::2], "time") == [4.0, 6.0, 8.0, 8.0] and column(injected[::2], "seconds") == [4.0] * 3 + [
        2.0
    ]
    clocks = ("time", "seconds", "end_to_end")
    for ours, theirs in zip(injected, overlapped, strict=True):
        assert {**ours, **dict.fromkeys(clocks)} == {**theirs, **dict.fromkeys(clocks)}
        for mine, way in zip(ours["end_to_end"], theirs["end_to_end"], strict=True):
            assert {**mine, "seconds": None} == {**way, "seconds": None}


def test_injected_delay_without_delay_is_diloco(drifting: Any) -> None:
    outer = {"name": "nesterov", "lr": 0.5, "momentum": 0.5}
    diloco = drifting(two_workers(4, policy={"name": "diloco", "outer": outer}), probed=1.0)
    injected = {"name": "injected_delay", "outer": outer, "outer_delay": 0}
    assert drifting(two_workers(4, policy=injected), probed=1.0) == diloco


def test_a_corrected_merge_begins_from_no_version_of_the_server(drifting: Any) -> None:
    # Outer SGD of rate 1: 0, 0.19 and 0.1; then θ is 0.145, and a worker its own round further.
    policy = {"name": "one_step_delay", "outer": {"name": "sgd", "lr": 1.0}, "merge": "corrected"}
    lines = drifting(two_workers(3, policy=policy))
    lines.sort(key=lambda line: (line["version"], line["workers"]))
    assert column(lines, "drift") == close(0, 0, 0.045, 0.045, 0.03195, 0.03195)
    assert column(lines, "ancestor") == [True] * 2 + [False] * 4
    assert column(lines, "versions") == [0, 0, 1, 1, 1, 1]
    assert column(lines, "steps") == [0, 0, 3, 3, 3, 3]  # merged since the θ that it began from, of both workers


def test_async_local_sgd(drifting: Any) -> None:
    # Both arrive at 2 s and 4 s, worker 0 first, and θ ← θ − ½ Δ: 0 → 0.095 → 0.19 → 0.275975 → …
    policy = {"name": "async_local_sgd", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.0}}
    lines = drifting(tiny(model=ONE, policy=policy), probed=1.0)
    third = 0.19 + 0.5 * 0.19 * (1 - 0.095)  # from 0.095, where worker 0 began again
    assert column(lines, "time") == [2.0, 2.0, 4.0, 4.0] and column(lines, "workers") == [[0], [1]] * 2
    assert column(lines, "versions") == [0, 1, 1, 1] and column(lines, "steps") == [0, 2, 2, 2]
    assert column(lines, "tree_distance") == [1, 3, 3, 3]  # M H − 1
    assert column(lines, "drift") == close(0.0, 0.095, 0.095, third - 0.19)
    assert column(lines, "delta_norm") == close(0.19, 0.19, 0.19 * 0.905, 0.19 * 0.81)
    assert column(lines, "redundancy") == close(None, 1, 1, 1)
    assert column(lines, "alignment") == close(None, 1, 1, 1)  # v is 0 at first: undefined
    assert column(lines, "spread") == [None] * 4  # alone
    assert column(lines, "gap")[:2] == close(0.0, 1.0)  # as far as the only step so far
    errors = (0.0, 0.095 / (1 - 0.095), 0.095 / 0.81, (third - 0.19) / (1 - third))
    assert probe(lines, "staleness_error") == close(*errors)
    # ½ (1 − θ)² after the step, and after one of ½ · 0.19 (1 − t) from the same target.
    thetas, targets = [0.095, 0.19, third, third + 0.5 * 0.19 * 0.81], [0.0, 0.095, 0.19, third]
    assert probe(lines, "stepped_loss") == close(*(0.5 * (1 - theta) ** 2 for theta in thetas))
    fresh = [t + 0.5 * 0.19 * (1 - t) for t in targets]
    assert probe(lines, "stepped_loss_fresh") == close(*(0.5 * (1 - theta) ** 2 for theta in fresh))


def test_cosines_between_vectors_that_are_not_parallel(drifting: Any) -> None:
    # a = (1, 5): a step leaves 0.9 and 0.5 of the way; two leave 0.81 and 0.25. Outer SGD with lr ½ would go straight;
    # Nesterov (lr 0.1, μ 0.9) remembers. Worker 0 brings Δ0 = −(0.19, 0.75) to θ = 0, worker 1 the same.
    model = {"dtype": "float64", "size": 2, "curvature": [1.0, 5.0]}
    policy = {"name": "async_local_sgd", "outer": {"name": "nesterov", "lr": 0.1, "momentum": 0.9}}
    lines = drifting(tiny(model=model, policy=policy), probed=1.0)
    leaves = (0.81, 0.25)
    theta, v, starts, expected = [0.0, 0.0], [0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], []
    for worker in (0, 1, 0, 1):
        delta = [-(1 - leave) * (1 - s) for leave, s in zip(leaves, starts[worker])]
        d = [t - s for t, s in zip(theta, starts[worker])]
        expected.append((angle(delta, [-each for each in d]), angle(delta, v), error(theta, starts[worker], leaves)))
        v = [0.9 * each + g for each, g in zip(v, delta)]
        theta = [t - 0.1 * (g + 0.9 * each) for t, g, each in zip(theta, delta, v)]
        starts[worker] = theta
    assert column(lines, "redundancy") == close(*(each[0] for each in expected))
    assert column(lines, "alignment") == close(*(each[1] for each in expected))
    assert probe(lines, "staleness_error") == close(*(each[2] for each in expected))
    assert 0.9 < expected[3][1] < 1.0 - 1e-6, "not parallel, or nothing is shown"


def angle(one: list[float], other: list[float]) -> Any:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other)) / lengths if lengths else None


def error(target: list[float], base: list[float], leaves: tuple[float, ...]) -> float:
    """‖(I − (I − ηA)^H) d‖ over ‖Δ*‖ = ‖(I − (I − ηA)^H) (1 − t)‖."""
    above = math.hypot(*((1 - leave) * (t - b) for leave, t, b in zip(leaves, target, base)))
    return above / math.hypot(*((1 - leave) * (1 - t) for leave, t in zip(leaves, target)))


HALOS = {
    "name": "halos",
    "outer": {"name": "sgd", "lr": 0.5},
    "local": {"name": "sgd", "lr": 1.0},
    "local_updates": 1,
    "merge_weight": 0.5,
}


def test_halos_at_the_global_server(drifting: Any) -> None:
    # A worker in each of two regions, K = 1. At 2 s both local servers are at 0.19, and send −0.19 computed from Θ = 0:
    # Θ becomes 0.095 by the first and 0.19 by the second, which comes to 0.095.
    cluster = {"regions": [{"workers": [1.0]}, {"workers": [1.0]}]}
    lines = drifting(tiny(model=ONE, cluster=cluster, policy=HALOS, budget={"local_steps": 4}), probed=1.0)
    first, second = [line for line in lines if line["server"] == "global"]
    assert (first["drift"], first["steps"], first["tree_distance"], first["gap"]) == (0.0, 0, 1, 0.0)
    assert second["drift"] == pytest.approx(0.095, abs=EXACT) and second["versions"] == 1
    assert (second["steps"], second["tree_distance"], second["merges"]) == (2, 2 + 2 - 1, 0)
    assert second["delta_norm"] == pytest.approx(0.19, abs=EXACT) and second["delta_of"] == "commit"
    assert second["drift_by_delta"] == pytest.approx(0.5, abs=EXACT) and second["gap"] == pytest.approx(1.0, abs=EXACT)
    assert second["redundancy"] == pytest.approx(1.0) and second["workers"] == [1] and second["regions"] == [1]
    (way,) = second["end_to_end"]  # from Θ = 0 as well
    assert way["drift"] == pytest.approx(0.095, abs=EXACT) and (way["steps"], way["tree_distance"]) == (2, 3)
    # From 0.095: Δ* = −0.19 · 0.905, so the error is 0.095 / 0.905.
    assert way["probe"]["staleness_error"] == pytest.approx(0.095 / 0.905, abs=EXACT)


def test_halos_at_a_local_server(drifting: Any) -> None:
    # Two workers of one region, K = 2. At 2 s worker 0 makes the local model 0.19 and begins again from there, worker 1
    # makes it 0.38 and begins from that; then Θ = ½ · 0.38 = 0.19, and the local one becomes ½ (0.38 + 0.19) = 0.285.
    # At 4 s worker 0 brings −0.1539 to 0.285: 0.4389, to which worker 1 brings −0.1178.
    policy = {**HALOS, "local_updates": 2}
    lines = drifting(tiny(model=ONE, policy=policy), probed=1.0)
    local = [line for line in lines if line["server"] == "local-0"]
    assert column(local, "drift") == close(0.0, 0.19, 0.285 - 0.19, 0.4389 - 0.38)
    assert column(local, "versions") == [0, 1, 1, 1] and column(local, "steps") == [0, 2, 2, 2]
    assert column(local, "merges") == [0, 0, 1, 1]  # it took over Θ meanwhile
    assert column(local, "tree_distance") == [1, 3, 3, 3] and column(local, "ancestor") == [True] * 4
    assert probe(local, "staleness_error") == close(0.0, 0.19 / 0.81, 0.095 / (1 - 0.285), 0.0589 / (1 - 0.4389))
    first, second = [line for line in lines if line["server"] == "global"]
    assert first["local_steps"] == 4 and first["tree_distance"] == 3  # 4 steps, of which the last is 3 from Θ
    # Computed from the Θ that was taken over, 0.19, which is the latest: no drift; but the workers began elsewhere.
    assert second["drift"] == 0.0 and second["delta_norm"] == pytest.approx(0.5567 - 0.285, abs=EXACT)
    ways = second["end_to_end"]
    assert [way["drift"] for way in ways] == close(0.0, 0.19)  # from 0.19 and 0.38 to Θ = 0.19
    assert [way["ancestor"] for way in ways] == [False, False]
    assert [way["tree_distance"] for way in ways] == [None, None]
    assert [way["tree_distance"] for way in first["end_to_end"]] == [1, 3]


def test_eager(drifting: Any) -> None:
    # Outer SGD of rate 1, two rounds. Each goes from 0 to 0.19; both step at once to 0.19 / 2, then to θ below.
    theta = 0.095 + 0.19 + (0.905 * 0.19 - 0.19) / 2
    policy = {"name": "eager_diloco", "outer": {"name": "sgd", "lr": 1.0}}
    lines = drifting(tiny(model=ONE, policy=policy), probed=1.0)
    own = [line for line in lines if line["server"].startswith("replica-")]
    assert column(own, "drift") == [0.0] * 4 and column(own, "redundancy") == [None] * 4
    assert probe(own, "staleness_error") == [0.0] * 4 and column(own, "tree_distance") == [1] * 4
    late = [line for line in lines if line["server"] == "global"]
    assert column(late, "drift") == close(0.095, 0.095, theta - 0.095, theta - 0.095)
    # Round 0's: from the start of the run. The mean replica has moved since by two commits of nothing that is complete.
    assert column(late[:2], "ancestor") == [True] * 2 and column(late[:2], "steps") == [0] * 2
    # Round 1's: from a replica, which is no global model. Since version 0: M H = 4 steps merged; the replica's own H.
    assert column(late[2:], "ancestor") == [False] * 2 and column(late[2:], "steps") == [4] * 2
    assert column(late[2:], "tree_distance") == [4 + 0 + 2 - 1, 4 + 2 + 2 - 1]
    assert column(late, "redundancy") == close(1, 1, 1, 1)
    errors = [0.095 / 0.905] * 2 + [(theta - 0.095) / (1 - theta)] * 2
    assert probe(late, "staleness_error") == close(*errors)


def test_overlap(drifting: Any) -> None:
    # Unequal steps, 2 and 1, pulled back halfway, no momentum: ends 0.19 and 0.1, x = 0.095 and 0.05, z = 0.0725. In
    # the second round one is pulled forward and one back: d = z − x.
    policy = {"name": "overlap_local_sgd", "pullback": 0.5, "momentum": 0.0}
    lines = drifting(two_workers(2, policy=policy), probed=1.0)
    assert column(lines, "drift") == close(0.0, 0.0, 0.0225, 0.0225)
    assert column(lines, "local_steps") == [2, 1, 2, 1] and column(lines, "ancestor") == [True] * 2 + [False] * 2
    assert column(lines, "redundancy") == close(None, None, -1, 1)
    assert column(lines, "steps") == [0] * 4 and column(lines, "tree_distance") == [1, 2, 1, 2]
    assert probe(lines, "staleness_error") == close(0, 0, 0.0225 / 0.9275, 0.0225 / 0.9275)
    assert column(lines, "spread") == close(1, 1, 1, 1)
    assert column(lines, "consensus") == [*close(0.045**2, 0.045**2), None, None]  # Δ: 0.19 and 0.1; then two starts


def test_streaming(drifting: Any) -> None:
    # Two parameters in two fragments, H = 2, τ = 0, α = 0, outer SGD of rate 1. After step 1 fragment 1 is sent and is
    # 0.1; after step 2 fragment 0, 0.19: then the first step is complete in both. Θ was (0, 0.1) until then, and the
    # workers began it from (0, 0), Δ = −(0.1, 0.1).
    model = {"dtype": "float64", "size": 2}
    policy = {
        "name": "streaming_diloco",
        "outer": {"name": "sgd", "lr": 1.0},
        "fragments": 2,
        "pattern": "balanced",
        "tau": 0,
        "alpha": 0.0,
    }
    lines = drifting(tiny(model=model, policy=policy), probed=1.0)
    first = lines[0]
    assert (first["time"], first["workers"], first["parameters"], first["local_steps"]) == (2.0, [0], 1, 1)
    assert (first["drift"], first["steps"], first["ancestor"], first["redundancy"]) == (0.0, 0, True, None)
    assert first["delta_norm"] == pytest.approx(0.19, abs=EXACT) and first["delta_of"] == "commit"
    assert first["probe"] is None  # what it would have come to from a fragment is no question
    (way,) = first["end_to_end"]
    assert way["drift"] == pytest.approx(0.1, abs=EXACT)
    assert way["drift_by_norm"] == pytest.approx(1.0) and way["drift_rms"] == pytest.approx(0.1 / math.sqrt(2))
    assert way["drift_by_delta"] == pytest.approx(0.1 / math.hypot(0.1, 0.1))
    # One step from (0, 0.1): Δ* = −(0.1, 0.09), Δ − Δ* = (0, −0.01).
    assert way["probe"]["staleness_error"] == pytest.approx(0.01 / math.hypot(0.1, 0.09), abs=EXACT)
    assert [line["drift"] for line in lines] == [0.0] * len(lines)


GOSSIP = '''
from dataclasses import dataclass
from halos import Contribution, Register, Simulation, all_of, hookimpl, mean


@dataclass
class Gossip:
    """Four workers on a ring of pairs: after each round one half mixes with a neighbour, all the way."""

    async def run(self, sim: Simulation) -> None:
        models = [sim.params for _ in sim.workers]
        for r in sim.rounds():
            updates = await all_of([sim.train(w, x, round=r) for w, x in zip(sim.workers, models)])
            pairs = [(0, 1), (2, 3)] if r.index % 2 == 0 else [(1, 2), (3, 0)]
            for pair in pairs:
                mixed = mean(updates[i].params for i in pair)
                for i in pair:
                    models[i] = mixed
                    sim.commit(mixed, [updates[i]], server=f"node-{i}")
            before = sim.params
            sim.commit(mean(models), [Contribution([u], u.start, before) for u in updates])


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("gossip", Gossip)
'''


def test_gossip(drifting: Any, tmp_path: Any) -> None:
    # Four workers of speeds 1, 1, ½, ½, so 2, 2, 1, 1 steps. Round 1, from 0: ends 0.19 twice and 0.1 twice, mixed in
    # pairs of equals: 0.19, 0.19, 0.1, 0.1, mean 0.145. In round 2, everybody is away from the mean, by 0.045.
    (tmp_path / "gossip.py").write_text(GOSSIP, encoding="utf-8")
    cluster = {"regions": [{"workers": [1.0, 1.0, 0.5, 0.5]}]}
    sections = tiny(
        model=ONE,
        cluster=cluster,
        steps={"name": "by_speed", "base": 2},
        policy={"name": "gossip"},
        budget={"local_steps": 12},
    )
    lines = drifting(sections, [str(tmp_path / "gossip.py")], probed=1.0)
    nodes = [line for line in lines if line["server"].startswith("node-")]
    assert column(nodes, "drift") == [0.0] * 8 and column(nodes, "tree_distance") == [1, 1, 0, 0, 1, 0, 0, 1]
    late = [line for line in lines if line["server"] == "global"][4:]
    assert column(late, "workers") == [[0], [1], [2], [3]]
    assert column(late, "drift") == close(0.045, 0.045, 0.045, 0.045)
    assert column(late, "ancestor") == [False] * 4 and column(late, "versions") == [0] * 4
    assert column(late, "steps") == [0] * 4  # the mean of round 1 holds all that there was
    assert column(late, "tree_distance") == [1, 3, 4, 5]
    # 0.19 → 0.145 is backwards: Δ fights what happened; 0.1 → 0.145 forwards.
    assert column(late, "redundancy") == close(-1, -1, 1, 1)
    two, one = 0.19 * 0.045 / (0.19 * 0.855), 0.1 * 0.045 / (0.1 * 0.855)
    assert probe(late, "staleness_error") == close(two, two, one, one)
    # Δ: 0.19 · 0.81 twice, 0.1 · 0.9 twice, all backwards on the line: parallel, but from two starts.
    assert column(late, "spread") == close(1, 1, 1, 1) and column(late, "consensus") == [None] * 4
