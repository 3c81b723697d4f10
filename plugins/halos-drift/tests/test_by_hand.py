"""Every number of drift.jsonl of runs whose models can be followed with pen and paper, by plain arithmetic.

Bowls with their optimum at 1, from 0, in float64: where 1 − θ is x, a local step of 0.1 leaves 1 − 0.1 a of it, a the
curvature, so h of them are a Δ = start − end of ((1 − 0.1 a)^h − 1) x.
"""

from __future__ import annotations

import math
from typing import Any, Optional

import pytest

from halos.testing import tiny

Vector = list[float]
A = [1.0, 2.0, 3.0]  # curvatures
ALL = {"probed": 1.0, "elementwise": True, "curvature": True}


def bowl(size: int = 2, **changes: Any) -> dict[str, Any]:
    """A run on the bowl."""
    model = {"name": "quadratic", "size": size, "curvature": A[:size], "dtype": "float64"}
    return tiny(**{"model": model, **changes})


def add(x: Vector, y: Vector, times: float = 1.0) -> Vector:
    return [a + times * b for a, b in zip(x, y)]


def times(factor: float, x: Vector) -> Vector:
    return [factor * a for a in x]


def dot(x: Vector, y: Vector) -> float:
    return sum(a * b for a, b in zip(x, y))


def norm(x: Vector) -> float:
    return math.sqrt(dot(x, x))


def cos(x: Vector, y: Vector) -> Optional[float]:
    below = norm(x) * norm(y)
    return dot(x, y) / below if below > 1e-12 else None


def trained(theta: Vector, steps: int) -> Vector:
    """Δ of so many local steps."""
    return [((1 - 0.1 * a) ** steps - 1) * (1 - t) for a, t in zip(A, theta)]


class Nesterov:
    """v ← μ v + Δ; θ ← θ − lr (Δ + μ v), of one replica."""

    def __init__(self, lr: float = 0.5, mu: float = 0.5, size: int = 2) -> None:
        self.lr, self.mu, self.v = lr, mu, [0.0] * size

    def step(self, theta: Vector, delta: Vector) -> Vector:
        self.v = add(delta, self.v, self.mu)
        return add(theta, add(delta, self.v, self.mu), -self.lr)


class Typical:
    """C, by its definition."""

    def __init__(self) -> None:
        self.steps: list[Vector] = []

    def add(self, step: Vector) -> None:
        self.steps.append(step)

    def gaps(self, d: Vector) -> dict[str, Optional[float]]:
        """‖d‖ / √P in units of C, and the mean of |d_j| in units of C_j, where there is one."""
        if norm(d) == 0.0:
            return {"gap": 0.0, "gap_elementwise": 0.0}
        if not self.steps:
            return {"gap": None, "gap_elementwise": None}
        size = self.typical([dot(step, step) / len(step) for step in self.steps])
        each = [self.typical([step[j] ** 2 for step in self.steps]) for j in range(len(d))]
        several = [abs(x) / c for x, c in zip(d, each) if c]
        return {
            "gap": norm(d) / math.sqrt(len(d)) / size,
            "gap_elementwise": sum(several) / len(several),
        }

    def typical(self, squares: list[float]) -> float:
        n = len(squares)
        e = sum(0.001 * 0.999 ** (n - 1 - i) * square for i, square in enumerate(squares))
        return math.sqrt(e / (1 - 0.999**n))


def distances(base: Vector, target: Vector, delta: Vector, typical: Typical) -> dict[str, Any]:
    """What a line says of d and Δ."""
    d = add(target, base, -1.0)
    return {
        "parameters": len(d),
        "drift": norm(d),
        "drift_by_norm": norm(d) / norm(target) if norm(target) else None,
        "drift_by_delta": norm(d) / norm(delta),
        "drift_rms": norm(d) / math.sqrt(len(d)),
        **typical.gaps(d),
        "delta_norm": norm(delta),
        "redundancy": cos(delta, times(-1.0, d)),
    }


def staleness(base: Vector, target: Vector, steps: int) -> dict[str, Any]:
    """What a probe says without noise: Δ* is that from the target."""
    delta, fresh = trained(base, steps), trained(target, steps)
    return {
        "staleness_error": norm(add(delta, fresh, -1.0)) / norm(fresh),
        "staleness_cosine": cos(delta, fresh),
        "noise_floor": 0.0,
        "loss_change": loss(target) - loss(base),
        "curvature": sum(a * (t - b) ** 2 for a, b, t in zip(A, base, target)),
    }


def loss(theta: Vector) -> float:
    return 0.5 * sum(a * (1 - t) ** 2 for a, t in zip(A, theta))


def same(line: dict[str, Any], expected: dict[str, Any]) -> None:
    found = {key: line[key] for key in expected}
    assert found == {
        key: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
        for key, value in expected.items()
    }


def test_diloco_weighted_by_unequal_steps(drifting: Any) -> None:
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0, 0.5]}]},
            steps={"name": "by_speed", "base": 2},
            weights={"name": "steps"},
            policy={"name": "diloco", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}},
            budget={"local_steps": 9},
        ),
        **ALL,
    )
    theta, outer = [0.0, 0.0], Nesterov()
    assert len(lines) == 6
    for round in range(3):
        first, second = trained(theta, 2), trained(theta, 1)  # factors 4/3 and 2/3 of 2 and 1 steps
        mean = add(times(2 / 3, first), second, 1 / 3)
        for index, (delta, steps) in enumerate([(first, 2), (second, 1)]):
            line = lines[2 * round + index]
            same(line, distances(theta, theta, delta, Typical()))
            same(
                line,
                {
                    "steps": 0,
                    "merges": 0,
                    "versions": 0,
                    "seconds": 2.0,
                    "tree_distance": [1, 2][index],
                    "ancestor": True,
                    "alignment": cos(delta, outer.v),
                    "spread": cos(first, second),
                    "consensus": dot(add(first, second, -1.0), add(first, second, -1.0)) / 4,
                    "adam_drift": None,
                },
            )
            same(line["probe"], {**staleness(theta, theta, steps), "stepped_loss": None, "kl": None})
        theta = outer.step(theta, mean)


def test_one_step_delay_with_momentum_that_is_no_multiple_of_the_difference(drifting: Any) -> None:
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0, 0.5]}]},
            steps={"name": "by_speed", "base": 2},
            policy={"name": "one_step_delay", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}},
            budget={"local_steps": 12},
        ),
        **ALL,
    )
    thetas, outer, typical = [[0.0, 0.0]], Nesterov(), Typical()
    assert len(lines) == 8
    for round in range(4):
        base, target = thetas[max(0, round - 1)], thetas[round]
        first, second = trained(base, 2), trained(base, 1)
        for index, (delta, steps) in enumerate([(first, 2), (second, 1)]):
            line = lines[2 * round + index]
            same(line, distances(base, target, delta, typical))
            same(
                line,
                {
                    "steps": 3 if round else 0,
                    "tree_distance": (3 if round else 0) + [1, 2][index],
                    "ancestor": True,
                    "alignment": cos(delta, outer.v),
                    "spread": cos(first, second),
                    "consensus": dot(add(first, second, -1.0), add(first, second, -1.0)) / 4,
                },
            )
            same(line["probe"], {**staleness(base, target, steps), "stepped_loss": None})
            (way,) = line["end_to_end"]
            same(
                way,
                {
                    key: line[key]
                    for key in ("drift", "gap", "gap_elementwise", "steps", "tree_distance", "drift_by_norm")
                },
            )
        after = outer.step(target, times(0.5, add(first, second)))
        typical.add(add(after, target, -1.0))
        thetas.append(after)


def test_eager_among_three(drifting: Any) -> None:
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0, 2 / 3, 1 / 3]}]},
            steps={"name": "by_speed", "base": 3},
            policy={"name": "eager_diloco", "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}},
            budget={"local_steps": 18},
        ),
        **ALL,
    )
    rounds, steps = 3, [3, 2, 1]
    replicas, outers = [[[0.0, 0.0]] for _ in range(3)], [Nesterov() for _ in range(3)]
    deltas: list[list[Vector]] = []
    middles, typical = [[0.0, 0.0]], Typical()  # global models
    before: list[Any] = [None] * 3
    at = iter(lines)

    def merged(index: int, target: Vector) -> None:
        """Round `index` is complete in the global model, so far `target`."""
        several = deltas[index]
        pairs = [(0, 1), (0, 2), (1, 2)]
        spread = sum(cos(several[i], several[j]) for i, j in pairs) / 3
        mean = times(1 / 3, add(add(several[0], several[1]), several[2]))
        consensus = sum(dot(each, each) for each in several) / 3 - dot(mean, mean)
        for m in range(3):
            line, base = next(at), replicas[m][index]
            version = max(0, index - 1)  # of the global model, which the base is nearest to
            since = 6 * (index - version)
            apart = steps[m] * (index - version)
            same(line, distances(base, target, several[m], typical))
            same(
                line,
                {
                    "server": "global",
                    "workers": [m],
                    "steps": since,
                    "ancestor": index == 0,
                    "tree_distance": max(since + sum(steps[:m]) + steps[m] - 1, apart + steps[m] - 1),
                    "alignment": None,
                    "spread": spread,
                    "consensus": consensus if index == 0 else None,
                    "delta_of": "contribution",
                },
            )
            (way,) = line["end_to_end"]
            same(way["probe"], staleness(base, target, steps[m]))

    for round in range(rounds):
        deltas.append([trained(replicas[m][-1], steps[m]) for m in range(3)])
        for m in range(3):
            line, delta, base = next(at), deltas[-1][m], replicas[m][-1]
            same(line, distances(base, base, delta, Typical()))
            same(
                line,
                {
                    "server": f"replica-{m}",
                    "steps": 0,
                    "ancestor": True,
                    "tree_distance": steps[m] - 1,
                    "alignment": cos(delta, outers[m].v),
                    "spread": None,
                    "consensus": None,
                    "end_to_end": [],
                },
            )
            mixed = times(1 / 3, delta)
            if round:
                old = deltas[-2]
                mean = times(1 / 3, add(add(old[0], old[1]), old[2]))
                mixed = add(mean, add(delta, old[m], -1.0), 1 / 3)
            stepped = None
            if round == 0:  # Δ alone made the step; the same from the target, which is the base
                stepped = loss(Nesterov().step(base, mixed))
            same(line["probe"], {"staleness_error": 0.0, "stepped_loss": stepped, "stepped_loss_fresh": stepped})
            before[m] = base, outers[m].v, mixed
            replicas[m].append(outers[m].step(base, mixed))
        target = middles[-1]
        if round:
            merged(round - 1, target)
        middles.append(times(1 / 3, add(add(replicas[0][-1], replicas[1][-1]), replicas[2][-1])))
        if round:
            typical.add(add(middles[-1], target, -1.0))
    merged(rounds - 1, middles[-1])
    assert next(at, None) is None


def test_overlap_with_momentum(drifting: Any) -> None:
    alpha, beta = 0.6, 0.7
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0, 0.5]}]},
            steps={"name": "by_speed", "base": 2},
            policy={"name": "overlap_local_sgd", "pullback": alpha, "momentum": beta},
            budget={"local_steps": 12},
        ),
        **ALL,
    )
    x, v, z, steps = [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [[0.0, 0.0]], [2, 1]
    typical = Typical()
    assert len(lines) == 8
    for round in range(4):
        target = z[-1]
        several = [trained(x[m], steps[m]) for m in range(2)]
        for m in range(2):
            line = lines[2 * round + m]
            same(line, distances(x[m], target, several[m], typical))
            same(
                line,
                {
                    "steps": 0,
                    "ancestor": round == 0,
                    "tree_distance": [1, 2][m],
                    "alignment": None,
                    "spread": cos(several[0], several[1]),
                    "consensus": None
                    if round
                    else dot(add(several[0], several[1], -1), add(several[0], several[1], -1)) / 4,
                },
            )
            same(line["probe"], {**staleness(x[m], target, steps[m]), "stepped_loss": None})
        # A worker's anchor is that of the round before: the mean of this round is still to come.
        ends = [add(x[m], several[m], -1.0) for m in range(2)]
        x = [add(times(1 - alpha, ends[m]), target, alpha) for m in range(2)]
        v = [add(times(beta, v[m]), add(x[m], target, -1.0)) for m in range(2)]
        z.append(add(target, times(0.5, add(v[0], v[1]))))
        typical.add(add(z[-1], target, -1.0))


class Delayed:
    """Delayed Nesterov with c = 0 and N = 2, by its formula."""

    def __init__(self, lr: float, beta: float) -> None:
        self.lr, self.beta, self.m, self.gathered, self.count = lr, beta, [0.0, 0.0], [0.0, 0.0], 0

    def step(self, theta: Vector, delta: Vector) -> Vector:
        self.count += 1
        self.gathered = add(self.gathered, delta)
        moved = times(0.5, delta)
        if self.count % 2 == 0:
            self.m = add(times(self.beta, self.m), self.gathered, 0.5)
            self.gathered = [0.0, 0.0]
            moved = add(moved, self.m, self.beta)
        return add(theta, moved, -self.lr)


DELAYED = {"name": "delayed_nesterov", "lr": 0.8, "beta": 0.5, "buffer": 2}


def test_async_with_delayed_nesterov(drifting: Any) -> None:
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0, 0.45]}]},
            steps={"name": "fixed", "base": 2},
            policy={"name": "async_local_sgd", "outer": DELAYED},
            budget={"local_steps": 16},
        ),
        **ALL,
    )
    # Jobs of 2 s and of 4.44 s: arrivals at 2, 4, 4.44, 6, 8, 8.89, 10, 12.
    order = [0, 0, 1, 0, 0, 1, 0, 0]
    assert [line["workers"] for line in lines] == [[worker] for worker in order]
    thetas, began, outer, typical = [[0.0, 0.0]], [0, 0], Delayed(0.8, 0.5), Typical()
    for version, (worker, line) in enumerate(zip(order, lines)):
        base, target = thetas[began[worker]], thetas[-1]
        delta = trained(base, 2)
        same(line, distances(base, target, delta, typical))
        age = version - began[worker]
        momentum, state = outer.m, (outer.m, outer.gathered, outer.count)
        after = outer.step(target, delta)
        other = Delayed(0.8, 0.5)
        other.m, other.gathered, other.count = state
        fresh = other.step(target, trained(target, 2))
        same(
            line,
            {
                "versions": age,
                "steps": 2 * age,
                "tree_distance": 2 * age + 1,
                "alignment": cos(delta, momentum),
                "spread": None,
                "consensus": None,
            },
        )
        same(line["probe"], staleness(base, target, 2))
        same(line["probe"], {"stepped_loss": loss(after), "stepped_loss_fresh": loss(fresh)})
        typical.add(add(after, target, -1.0))
        thetas.append(after)
        began[worker] = version + 1


def test_halos_over_several_exchanges(drifting: Any) -> None:
    """Free links, a worker a region, K = 2: the job after an exchange began before the server took the model over."""
    lines = drifting(
        bowl(
            cluster={"regions": [{"workers": [1.0]}, {"workers": [0.45]}]},
            steps={"name": "fixed", "base": 1},
            policy={
                "name": "halos",
                "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5},
                "local": {"name": "sgd", "lr": 1.0},
                "local_updates": 2,
                "merge_weight": 0.25,
            },
            budget={"local_steps": 10},
        ),
        **ALL,
    )
    # Jobs of 1 s and of 2.22 s: arrivals 1, 2, 2.22, 3, 4, 4.44, 5, 6, 6.67, 7, 8, 8.89.
    at = iter(lines)
    theta, S, outer, typical = [[0.0, 0.0]], 0, Nesterov(), Typical()
    contains = [0]  # steps in each version of the global model
    local = [[0.0, 0.0], [0.0, 0.0]]
    own = [Typical(), Typical()]
    taken, merged = [0, 0], [[0.0, 0.0], [0.0, 0.0]]  # version of the global model, and the local one then
    start, fresh = [[0.0, 0.0], [0.0, 0.0]], [True, True]
    waiting: list[list[tuple[Vector, int, bool]]] = [[], []]
    began_at = [0, 0]  # global version at dispatch
    for worker in [0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1]:
        line, base, target = next(at), start[worker], local[worker]
        delta = trained(base, 1)
        same(line, distances(base, target, delta, own[worker]))
        same(
            line,
            {
                "server": f"local-{worker}",
                "steps": 0,
                "versions": 0,
                "merges": 0 if base == target else 1,
                "ancestor": True,
                "tree_distance": 0,
                "alignment": None,
                "end_to_end": [],
            },
        )
        same(line["probe"], staleness(base, target, 1))
        local[worker] = add(target, delta, -1.0)
        own[worker].add(delta)
        waiting[worker].append((base, began_at[worker], fresh[worker]))
        fresh[worker] = False
        start[worker], began_at[worker] = local[worker], len(theta) - 1
        if len(waiting[worker]) == 2:
            line, base, target = next(at), theta[taken[worker]], theta[-1]
            delta = add(merged[worker], local[worker], -1.0)
            same(line, distances(base, target, delta, typical))
            since = contains[-1] - contains[taken[worker]]
            same(
                line,
                {
                    "server": "global",
                    "local_steps": 2,
                    "steps": since,
                    "merges": 0,
                    "ancestor": True,
                    "tree_distance": since + 1,
                    "alignment": cos(delta, outer.v),
                    "delta_of": "commit",
                    "probe": None,
                    "adam_drift": None,
                },
            )
            for way, (began, version, initial) in zip(line["end_to_end"], waiting[worker]):
                d = add(target, began, -1.0)
                same(
                    way,
                    {
                        "drift": norm(d),
                        "drift_rms": norm(d) / math.sqrt(2),
                        "drift_by_norm": norm(d) / norm(target) if norm(target) else None,
                        "drift_by_delta": norm(d) / norm(trained(began, 1)),
                        **typical.gaps(d),
                        "ancestor": initial,
                        "steps": contains[-1] - contains[version],
                    },
                )
                assert (way["tree_distance"] is None) == (not initial)
                same(way["probe"], staleness(began, target, 1))
            theta.append(outer.step(target, delta))
            typical.add(add(theta[-1], target, -1.0))
            S += 2
            contains.append(S)
            waiting[worker] = []
            local[worker] = add(times(0.75, local[worker]), theta[-1], 0.25)
            merged[worker], taken[worker] = local[worker], len(theta) - 1
            began_at[worker] = len(theta) - 1  # what it has at the end of this moment
        if S >= 10:
            break
    assert next(at, None) is None


def test_streaming_is_measured_fragment_by_fragment_and_the_whole_model_end_to_end(drifting: Any) -> None:
    """Three parameters in fragments {0} and {1, 2}, H = 2, τ = 1, α = ½: one of them is sent after each step."""
    lines = drifting(
        bowl(
            3,
            policy={
                "name": "streaming_diloco",
                "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5},
                "fragments": 2,
                "pattern": "balanced",
                "tau": 1,
                "alpha": 0.5,
            },
            budget={"local_steps": 12},
        ),
        **ALL,
    )
    pieces = [slice(0, 1), slice(1, 3)]
    outers, whole = [Nesterov(size=1), Nesterov(size=2)], Typical()
    worker, theta = [0.0] * 3, [0.0] * 3  # both workers do the same
    chunks: list[tuple[int, Vector, int, int]] = []  # where it ends, where it began, global version then
    applied, version, at = [0, 0], 0, iter(lines)
    contains = [0]

    def sync(p: int, t: int, until: int) -> None:
        nonlocal theta, version
        piece, target = pieces[p], theta
        delta = add(theta[piece], worker[piece], -1.0)
        momentum = outers[p].v
        part = outers[p].step(theta[piece], delta)
        applied[p] = t
        several = [chunk for chunk in chunks if chunk[0] <= until]
        for m in range(2):
            for index, (stop, began, since, _) in enumerate(several):
                line = next(at)
                same(line, distances(target[piece], target[piece], delta, Typical()))
                same(
                    line,
                    {
                        "time": float(t),
                        "workers": [m],
                        "steps": 0,
                        "ancestor": True,
                        "tree_distance": m * len(several) + index,
                        "alignment": cos(delta, momentum),
                        "delta_of": "commit",
                        "spread": None,
                        "probe": None,
                    },
                )
                (way,) = line["end_to_end"]
                d = add(target, began, -1.0)
                same(
                    way,
                    {
                        "drift": norm(d),
                        "drift_by_norm": norm(d) / norm(target),
                        "drift_by_delta": norm(d) / norm(trained(began, 1)),
                        "drift_rms": norm(d) / math.sqrt(3),
                        **whole.gaps(d),
                        "steps": contains[-1] - contains[since],
                        "ancestor": stop == 1,
                    },
                )
                same(way["probe"], staleness(began, target, 1))
        chunks[:] = [chunk for chunk in chunks if chunk[0] > until]
        theta = [*theta]
        theta[piece] = part
        whole.add(add(theta, target, -1.0))
        if several:
            version += 1
            contains.append(contains[-1] + 2 * len(several))

    for t in range(1, 7):
        chunks.append((t, worker, version, 0))
        worker = add(worker, trained(worker, 1), -1.0)
        # After an even step {0} is sent and {1, 2} received, after an odd one the other way; nothing before it was
        # sent. What is complete: all up to the step before; of the last round, only with the last sync.
        p = t % 2
        sync(p, t, 4 if t == 6 else t - 1)
        if t > 1:
            piece, worker = pieces[1 - p], [*worker]
            worker[piece] = add(times(0.5, worker[piece]), theta[piece], 0.5)
    sync(1, 6, 6)
    assert next(at, None) is None


def test_the_gap_of_a_fragment_is_in_steps_of_that_fragment(drifting: Any) -> None:
    """Eager, fragment by fragment, workers that do the same: a Δ began a sync of its fragment before, so one step."""
    lines = drifting(
        bowl(
            3,
            policy={
                "name": "streaming_diloco",
                "outer": {"name": "sgd", "lr": 1.0},
                "fragments": 2,
                "pattern": "balanced",
                "overlap": "outer_step",
            },
            budget={"local_steps": 12},
        ),
        probed=0.0,
        elementwise=True,
    )
    # Fragment {1, 2} is sent after steps 1, 3 and 5, fragment {0} after 2, 4 and 6. M = 2 and SGD of rate 1: a sync
    # takes ½ Δ and the ½ Δ' of the one before.
    moved: list[list[Vector]] = []  # by fragment: the steps that Θ_p made, at each sync
    for p, curves in enumerate([A[:1], A[1:]]):
        theta, own, steps = [0.0] * len(curves), [0.0] * len(curves), []
        old: Optional[Vector] = None
        for t in range(1, 7):
            own = [o + 0.1 * a * (1 - o) for o, a in zip(own, curves)]
            if t % 2 == p:
                delta = add(theta, own, -1.0)
                mixed = times(0.5, delta if old is None else add(delta, old))
                after = add(theta, mixed, -1.0)
                steps.append(add(after, theta, -1.0))
                old, theta, own = delta, after, after
        moved.append(steps)
    seen = 0
    for line in lines:
        if not line["drift"] or line["time"] == 6.0:
            continue
        steps = moved[line["parameters"] - 1]
        before = [i for i, step in enumerate(steps) if abs(norm(step) - line["drift"]) < 1e-9]
        assert len(before) == 1, "the base is a sync before the target"
        typical = Typical()
        for step in steps[: before[0] + 1]:
            typical.add(step)
        same(line, typical.gaps(steps[before[0]]))
        seen += 1
    assert seen == 4  # {0}: one sync, {1, 2}: one, of two workers; what comes at the end is left out


OWN_POLICIES = '''
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from halos import Contribution, MergeRule, Nesterov, Params, Register, SGD, Simulation, hookimpl


@dataclass(frozen=True)
class Buffered:
    """Two pseudo-gradients are one step; until then the model is the very same."""

    def init(self, params: Params) -> Any:
        return None

    def step(self, params: Params, delta: Params, state: Any, *, base: Any = None, staleness: int = 0) -> Any:
        return (params, delta) if state is None else (params - 0.5 * (state + delta), None)


@dataclass
class TakesOver:
    """A local server that takes the global model over as it is, though its own is younger."""

    outer: MergeRule = field(default_factory=SGD)

    async def run(self, sim: Simulation) -> None:
        worker, first = sim.workers[0], sim.params
        one = await sim.train(worker, first, 1)
        local, _ = self.outer.step(first, one.delta, None)
        sim.commit(local, [one], server="local")
        two = await sim.train(worker, local, 1)
        sim.commit(first, [], server="local")  # older than `local`
        sim.commit(first - two.delta, [two], server="local")
        sim.commit(first - one.delta - two.delta, [Contribution([one, two], first, first)])


@dataclass
class Half:
    """Rules by name, of which the other is asked first; what comes late counts half, and every other is dropped."""

    rules: dict[str, MergeRule] = field(default_factory=lambda: {"own": Nesterov(0.5, 0.5), "other": Nesterov(1.0, 0)})

    async def run(self, sim: Simulation) -> None:
        states = {name: rule.init(sim.params) for name, rule in self.rules.items()}
        while not sim.done:
            old = sim.params
            for index in range(3):
                update = await sim.train(sim.workers[0], old, 1)
                if index == 1:
                    sim.drop([update])
                    continue
                delta = update.delta if index == 0 else update.delta * 0.5
                tried = {name: rule.step(sim.params, delta, states[name]) for name, rule in self.rules.items()}
                params, states["own"] = tried["own"]
                sim.commit(params, [update])


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("takes_over", TakesOver)
    register("half", Half)


@hookimpl
def register_merge_rules(register: Register) -> None:
    register("buffered", Buffered)
'''


@pytest.fixture
def own(tmp_path: Any) -> list[str]:
    """The plugin above."""
    (tmp_path / "own_policies.py").write_text(OWN_POLICIES, encoding="utf-8")
    return [str(tmp_path / "own_policies.py")]


def test_a_model_that_a_rule_leaves_as_it_is_does_not_make_old_work_young(own: list[str], drifting: Any) -> None:
    # Two workers, at once: the first's Δ changes nothing, so to the second the model is the very one that it began
    # from, with the first's 2 steps behind it.
    policy = {"name": "async_local_sgd", "outer": {"name": "buffered"}}
    lines = drifting(bowl(policy=policy, budget={"local_steps": 8}), own, probed=0.0)
    assert [line["versions"] for line in lines] == [0, 1, 1, 1]
    assert [line["steps"] for line in lines] == [0, 2, 2, 2]
    assert [line["tree_distance"] for line in lines] == [1, 3, 3, 3]
    assert [line["drift"] > 0.0 for line in lines] == [False, False, True, False]
    assert [line["alignment"] for line in lines] == [None] * 4  # the rule says no momentum


def test_a_server_that_takes_over_an_older_model_has_merged_nevertheless(own: list[str], drifting: Any) -> None:
    lines = drifting(bowl(policy={"name": "takes_over"}, budget={"local_steps": 2}), own, probed=0.0)
    assert [(line["server"], line["merges"]) for line in lines] == [("local", 0), ("local", 1), ("global", 0)]
    assert lines[1]["drift"] == pytest.approx(norm([0.1, 0.2])) and lines[1]["ancestor"]


def test_the_step_again_is_along_what_the_policy_made_of_the_difference(own: list[str], drifting: Any) -> None:
    lines = drifting(bowl(policy={"name": "half"}, budget={"local_steps": 5}), own, probed=1.0)
    theta, outer = [0.0, 0.0], Nesterov()
    for round in range(2):
        base = theta
        for index, factor in enumerate([1.0, 0.5]):
            line, delta = lines[2 * round + index], trained(base, 1)
            same(line, {"alignment": cos(delta, outer.v), "drift": norm(add(theta, base, -1.0))})
            again = Nesterov()
            again.v = outer.v
            fresh = again.step(theta, times(factor, trained(theta, 1)))
            after = outer.step(theta, times(factor, delta))
            same(line["probe"], {"stepped_loss": loss(after), "stepped_loss_fresh": loss(fresh)})
            theta = after
