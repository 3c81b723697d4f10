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
A = [1.0, 2.0]  # curvatures


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
        self.steps: list[float] = []  # ‖step‖² / P

    def add(self, step: Vector) -> None:
        self.steps.append(dot(step, step) / len(step))

    def gap(self, d: Vector) -> Optional[float]:
        if norm(d) == 0.0:
            return 0.0
        n = len(self.steps)
        if not n:
            return None
        e = sum(0.001 * 0.999 ** (n - 1 - i) * square for i, square in enumerate(self.steps))
        return norm(d) / math.sqrt(len(d)) / math.sqrt(e / (1 - 0.999**n))


def distances(base: Vector, target: Vector, delta: Vector, gap: Optional[float]) -> dict[str, Any]:
    """What a line says of d and Δ."""
    d = add(target, base, -1.0)
    return {
        "parameters": len(d),
        "drift": norm(d),
        "drift_by_norm": norm(d) / norm(target) if norm(target) else None,
        "drift_by_delta": norm(d) / norm(delta),
        "drift_rms": norm(d) / math.sqrt(len(d)),
        "gap": gap,
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
        probed=1.0,
    )
    theta, outer = [0.0, 0.0], Nesterov()
    assert len(lines) == 6
    for round in range(3):
        first, second = trained(theta, 2), trained(theta, 1)  # factors 4/3 and 2/3 of 2 and 1 steps
        mean = add(times(2 / 3, first), second, 1 / 3)
        for index, (delta, steps) in enumerate([(first, 2), (second, 1)]):
            line = lines[2 * round + index]
            same(line, distances(theta, theta, delta, 0.0))
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
        probed=1.0,
    )
    thetas, outer, typical = [[0.0, 0.0]], Nesterov(), Typical()
    assert len(lines) == 8
    for round in range(4):
        base, target = thetas[max(0, round - 1)], thetas[round]
        first, second = trained(base, 2), trained(base, 1)
        for index, (delta, steps) in enumerate([(first, 2), (second, 1)]):
            line = lines[2 * round + index]
            same(line, distances(base, target, delta, typical.gap(add(target, base, -1.0))))
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
            same(way, {key: line[key] for key in ("drift", "gap", "steps", "tree_distance", "drift_by_norm")})
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
        probed=1.0,
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
            same(line, distances(base, target, several[m], typical.gap(add(target, base, -1.0))))
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
            same(line, distances(base, base, delta, 0.0))
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
        probed=1.0,
    )
    x, v, z, steps = [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [[0.0, 0.0]], [2, 1]
    typical = Typical()
    assert len(lines) == 8
    for round in range(4):
        target = z[-1]
        several = [trained(x[m], steps[m]) for m in range(2)]
        for m in range(2):
            line = lines[2 * round + m]
            same(line, distances(x[m], target, several[m], typical.gap(add(target, x[m], -1.0))))
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
        probed=1.0,
    )
    # Jobs of 2 s and of 4.44 s: arrivals at 2, 4, 4.44, 6, 8, 8.89, 10, 12.
    order = [0, 0, 1, 0, 0, 1, 0, 0]
    assert [line["workers"] for line in lines] == [[worker] for worker in order]
    thetas, began, outer, typical = [[0.0, 0.0]], [0, 0], Delayed(0.8, 0.5), Typical()
    for version, (worker, line) in enumerate(zip(order, lines)):
        base, target = thetas[began[worker]], thetas[-1]
        delta = trained(base, 2)
        same(line, distances(base, target, delta, typical.gap(add(target, base, -1.0))))
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
        probed=1.0,
    )
    # Jobs of 1 s and of 2.22 s: arrivals 1, 2, 2.22, 3, 4, 4.44, 5, 6, 6.67, 7, 8, 8.89.
    at = iter(lines)
    theta, S, outer, typical = [[0.0, 0.0]], 0, Nesterov(), Typical()
    contains = [0]  # steps in each version of the global model
    local = [[0.0, 0.0], [0.0, 0.0]]
    own = [Typical(), Typical()]
    taken, merged = [0, 0], [[0.0, 0.0], [0.0, 0.0]]  # version of the global model, and the local one then
    start, since_merge, fresh = [[0.0, 0.0], [0.0, 0.0]], [0, 0], [True, True]
    waiting: list[list[tuple[Vector, int, bool]]] = [[], []]
    began_at = [0, 0]  # global version at dispatch
    for worker in [0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1]:
        line, base, target = next(at), start[worker], local[worker]
        delta = trained(base, 1)
        same(line, distances(base, target, delta, own[worker].gap(add(target, base, -1.0))))
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
            same(line, distances(base, target, delta, typical.gap(add(target, base, -1.0))))
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
                        "gap": typical.gap(d),
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
