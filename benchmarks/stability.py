"""The largest stable outer rate under delay: found by runs of `injected_delay`, beside what one round's map says."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np
from halos_async_optimizers import MLA
from halos_injected_delay import InjectedDelay

from halos import SGD, MergeRule, Nesterov, Params
from halos.testing import record, tiny

SHARE = 0.5  # a: of the way to the optimum that a round goes
DELAYS = (0, 1, 2, 4, 8)  # k
BRACKET = (1e-3, 4.0)  # lr · a between which the limit is looked for
AT_ONCE = 16  # rates that a run tries; they cut a bracket into so many parts and one
WINDOWS = (50, 100, 300)  # rounds, of one run after the other, each in the part that the one before leaves
START = 1e-150  # from the optimum, 0: far enough from where numbers end, on either side


@dataclass(frozen=True)
class HeavyBall:
    """v ← μ v + Δ; θ ← θ − lr v."""

    lr: float
    momentum: float

    def init(self, params: Params) -> Params:
        return params.zeros()

    def step(
        self, params: Params, delta: Params, state: Params, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Params]:
        velocity = self.momentum * state + delta
        return params - self.lr * velocity, velocity


# One outer step in plain numbers: (θ, v, Δ, lr) → (θ, v).
Step = Callable[[float, float, float, float], tuple[float, float]]


def sgd(theta: float, v: float, delta: float, lr: float) -> tuple[float, float]:
    return theta - lr * delta, 0.0 * v


def nesterov(theta: float, v: float, delta: float, lr: float, mu: float) -> tuple[float, float]:
    v = mu * v + delta
    return theta - lr * (delta + mu * v), v


def heavy_ball(theta: float, v: float, delta: float, lr: float, mu: float) -> tuple[float, float]:
    v = mu * v + delta
    return theta - lr * v, v


def look_ahead(theta: float, v: float, delta: float, lr: float, gamma: float) -> tuple[float, float]:
    v = gamma * v + (1 - gamma) * delta
    return theta - lr * (gamma * v + delta), v


@dataclass(frozen=True)
class Rule:
    """A row of the table: a merge rule for every rate and delay, and the same in plain numbers."""

    make: Callable[[float, int], MergeRule]  # of lr and k
    step: Callable[[int], Step]  # of k
    displaced: float = 0.0  # γ, if workers begin at θ − lr γ v


RULES = {
    "SGD": Rule(lambda lr, k: SGD(lr), lambda k: sgd),
    "Nesterov .9": Rule(lambda lr, k: Nesterov(lr, 0.9), lambda k: partial(nesterov, mu=0.9)),
    "Nesterov .8": Rule(lambda lr, k: Nesterov(lr, 0.8), lambda k: partial(nesterov, mu=0.8)),
    "heavy ball .9": Rule(lambda lr, k: HeavyBall(lr, 0.9), lambda k: partial(heavy_ball, mu=0.9)),
    "MLA .9": Rule(lambda lr, k: MLA(lr, 0.9), lambda k: partial(look_ahead, gamma=0.9)),
    "MLA .9, displaced start": Rule(
        lambda lr, k: MLA(lr, 0.9, ahead=True), lambda k: partial(look_ahead, gamma=0.9), displaced=0.9
    ),
    "Nesterov .9^(1/(k+1))": Rule(
        lambda lr, k: Nesterov(lr, 0.9 ** (1 / (k + 1))), lambda k: partial(nesterov, mu=0.9 ** (1 / (k + 1)))
    ),
}


def growth(rule: Rule, delay: int, rates: Sequence[float], window: int) -> list[float]:
    """Return, by rate (lr · a), how far off the optimum a run gets in the last of three windows, over the one before.

    One worker, a local step a round, and a parameter for each rate, whose curvature makes it that: the largest has
    a = ½. A window is as many rounds again for every two of delay. 0 where a parameter has come to rest.
    """
    window *= (delay + 2) // 2
    curvature = [rate / rates[-1] for rate in rates]
    numbers = {"size": len(rates), "curvature": curvature, "optimum": 0.0, "start": START, "dtype": "float64"}
    sections = tiny(
        model={"name": "quadratic", **numbers},
        train={"optimizer": {"name": "sgd", "lr": SHARE}},
        cluster={"regions": [{"workers": [1.0]}]},
        steps={"base": 1},
        data={"validation_samples": 0},
        budget={"local_steps": 3 * window},
    )
    policy = InjectedDelay(outer=rule.make(rates[-1] / SHARE, delay), outer_delay=delay)
    commits = record(sections, policy=policy).global_commits
    off = np.abs([commit.params.tensors()["theta"].tolist() for commit in commits])  # [commits, rates]
    before, last = off[window:-window].max(0), off[-window:].max(0)
    return [float(end / start) if start > 0.0 else 0.0 for start, end in zip(before, last)]


def measured(rule: Rule, delay: int) -> tuple[float, float]:
    """Return the largest of the rates tried that is stable, and the next, which is not."""
    low, high = BRACKET
    for window in WINDOWS:
        ends = np.geomspace(low, high, AT_ONCE + 2).tolist()
        grown = [each > 1.0 for each in growth(rule, delay, ends[1:-1], window)]
        first = [*grown, True].index(True)
        low, high = ends[first], ends[first + 1]
    return low, high


def radius(rule: Rule, delay: int, rate: float) -> float:
    """The spectral radius of one round's linear map of (θ, v, what the last k rounds began from), with a = 1."""

    def after(state: Sequence[float]) -> list[float]:
        theta, v, *begun = state
        begun = [theta - rate * rule.displaced * v, *begun]
        return [*rule.step(delay)(theta, v, begun[-1], rate), *begun[:delay]]

    size = 2 + delay
    return float(np.abs(np.linalg.eigvals(np.array([after(row) for row in np.eye(size)]).T)).max())


def derived(rule: Rule, delay: int) -> float:
    """The rate at which that is 1, by bisection."""
    low, high = BRACKET
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if radius(rule, delay, middle) > 1.0 + 1e-12 else (middle, high)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), metavar="RULE")
    parser.add_argument("--delays", nargs="+", type=int, default=list(DELAYS), metavar="K")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows: dict[str, dict[int, dict[str, float]]] = {}
    print("| rule | " + " | ".join(f"k = {k}" for k in options.delays) + " |")
    print("|---" * (1 + len(options.delays)) + "|")
    for name in options.rules:
        rows[name] = {}
        for k in options.delays:
            low, high = measured(RULES[name], k)
            rows[name][k] = {"stable": low, "unstable": high, "derived": derived(RULES[name], k)}
        cells = [f"{each['stable']:#.4g} ({each['derived']:#.4g})" for each in rows[name].values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    cells = [each for row in rows.values() for each in row.values()]
    width = max(each["unstable"] / each["stable"] for each in cells) - 1
    worst = max(abs(math.log(each["stable"] / each["derived"])) for each in cells)
    print(
        f"\nlr · a, measured (derived); the next rate tried is {width:.2%} above, the largest difference is {worst:.2%}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
