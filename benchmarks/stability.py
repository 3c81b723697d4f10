"""The largest stable outer rate under delay: bisected on runs of `injected_delay`, beside what one round's map says."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
from halos_async_optimizers import MLA
from halos_injected_delay import InjectedDelay

from halos import SGD, Diverged, MergeRule, Nesterov, Params
from halos.testing import QuadraticProblem, record

SHARE = 0.5  # a: of the way to the optimum that a round goes
DELAYS = (0, 1, 2, 4, 8)  # k
BRACKET = (1e-3, 4.0)  # lr · a between which the limit is looked for
HALVINGS = 12  # of the bracket, on a logarithmic scale: its ends are then 0.2 % apart
SETTLED = 1e-9  # of the way: nearer to the optimum than that, rounding errors are what is left


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
    windows: int = 1  # how much longer than others it takes to tell growth from decay


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
        lambda lr, k: Nesterov(lr, 0.9 ** (1 / (k + 1))),
        lambda k: partial(nesterov, mu=0.9 ** (1 / (k + 1))),
        windows=4,
    ),
}


def grows(rule: Rule, delay: int, rate: float, window: int = 300) -> bool:
    """Whether a run with lr · a = `rate` leads away from the optimum: is farther off in its last third than before.

    In three windows of so many rounds, or of a sixth of that where it is then ten times as far off, or a tenth.
    """
    for rounds in (window * rule.windows // 6, window * rule.windows):
        growth = farther(rule, delay, rate, rounds)
        if not 0.1 < growth < 10.0:
            break
    return growth > 1.0


def farther(rule: Rule, delay: int, rate: float, window: int) -> float:
    """Return how far off the optimum the last of three windows of rounds gets, over how far the one before.

    One worker, one parameter, a local step of a = ½ a round; 0 where it has come to rest, infinite if it diverges.
    """
    sections = QuadraticProblem(curvature=(1.0,), lr=SHARE).sections(
        cluster={"regions": [{"workers": [1.0]}]},
        steps={"base": 1},
        data={"validation_samples": 0},
        budget={"local_steps": 3 * window},
    )
    policy = InjectedDelay(outer=rule.make(rate / SHARE, delay), outer_delay=delay)
    try:
        thetas = record(sections, policy=policy).thetas
    except Diverged:
        return math.inf
    before, last = (max(abs(theta - 1.0) for theta in part) for part in (thetas[window:-window], thetas[-window:]))
    return last / before if last > SETTLED else 0.0


def bisected(unstable: Callable[[float], bool], halvings: int, bracket: tuple[float, float] = BRACKET) -> float:
    """Return the rate between stable and unstable ones; the logarithmic middle of the last bracket."""
    low, high = bracket
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return math.sqrt(low * high)


def radius(rule: Rule, delay: int, rate: float) -> float:
    """The spectral radius of one round's linear map of (θ, v, what the last k rounds began from), with a = 1."""

    def after(state: Sequence[float]) -> list[float]:
        theta, v, *begun = state
        begun = [theta - rate * rule.displaced * v, *begun]
        return [*rule.step(delay)(theta, v, begun[-1], rate), *begun[:delay]]

    size = 2 + delay
    return float(np.abs(np.linalg.eigvals(np.array([after(row) for row in np.eye(size)]).T)).max())


def derived(rule: Rule, delay: int) -> float:
    """The rate at which that is 1."""
    return bisected(lambda rate: radius(rule, delay, rate) > 1.0 + 1e-12, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), metavar="RULE")
    parser.add_argument("--delays", nargs="+", type=int, default=list(DELAYS), metavar="K")
    parser.add_argument("--halvings", type=int, default=HALVINGS, help="of the bracket, 0.001 to 4")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    print("| rule | " + " | ".join(f"k = {k}" for k in options.delays) + " |")
    print("|---" * (1 + len(options.delays)) + "|")
    for name in options.rules:
        rule, cells = RULES[name], []
        for k in options.delays:
            measured, known = bisected(partial(grows, rule, k), options.halvings), derived(rule, k)
            rows.setdefault(name, {})[str(k)] = {"measured": measured, "derived": known}
            cells.append(f"{measured:.4g} ({known:.4g})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    width = math.log(BRACKET[1] / BRACKET[0]) / 2**options.halvings
    worst = max(abs(math.log(each["measured"] / each["derived"])) for row in rows.values() for each in row.values())
    print(f"\nmeasured (derived), lr · a; brackets are {width:.2%} wide, the largest difference is {worst:.2%}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
